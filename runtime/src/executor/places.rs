//! Where the buffers of a call lie: arguments, workspace, outputs, and storage that an output takes over from an argument. The
//! same on every device.

use super::Argument;
use crate::arguments::reach;
use crate::array::Array;
use crate::buffer::Buffer;
use lazuli_ir::kernel::Kernel;
use lazuli_ir::program::{BufferDecl, BufferId, KernelCall, MatmulCall, OutputDecl, Place, Program, SortCall};
use lazuli_ir::{DType, Error, ErrorKind, Result};
use smallvec::SmallVec;
use std::sync::Arc;

/// Storage of an output: new, or taken over from an input (its first element then is that of the input).
enum Storage {
    New(Arc<Buffer>),
    Donor(usize),
}

/// The buffers of a call.
pub(crate) struct Places {
    /// The address of each.
    pub(crate) pointers: SmallVec<[*mut u8; 16]>,
    storage: SmallVec<[Option<Storage>; 16]>,
}

impl Places {
    /// Places the buffers of a program: `workspace` tells where so many bytes at an offset of the workspace lie, `new` makes
    /// storage of so many bytes.
    pub(crate) fn of(
        program: &Program,
        arguments: &mut [Argument],
        mut workspace: impl FnMut(usize, usize) -> Result<*mut u8>,
        mut new: impl FnMut(usize) -> Result<Buffer>,
    ) -> Result<Places> {
        let count = program.buffers.len();
        let mut places = Places { pointers: SmallVec::with_capacity(count), storage: SmallVec::with_capacity(count) };
        for decl in &program.buffers {
            let (pointer, own) = match decl.place {
                Place::Input(i) => (arguments.get(i).ok_or_else(missing)?.array.as_ptr(), None),
                Place::Workspace(offset) => (workspace(offset, decl.bytes())?, None),
                Place::Output { donor } => {
                    let (pointer, own) = output(decl, donor, arguments, &mut new)?;
                    (pointer, Some(own))
                }
            };
            places.pointers.push(pointer);
            places.storage.push(own);
        }
        Ok(places)
    }

    /// For each argument, whether an output took its storage over.
    pub(crate) fn taken_over(&self, arguments: usize) -> Vec<bool> {
        let mut taken = vec![false; arguments];
        for own in self.storage.iter().flatten() {
            if let Storage::Donor(i) = own {
                taken[*i] = true;
            }
        }
        taken
    }

    /// The program's outputs.
    pub(crate) fn outputs(&self, program: &Program, arguments: &[Argument]) -> Result<Vec<Array>> {
        let one = |o: &OutputDecl| {
            let number = o.buffer.0 as usize;
            let wrong = || Error::internal("an output refers to a buffer that does not leave the call");
            let decl = program.buffers.get(number).ok_or_else(wrong)?;
            let mut layout = o.layout.clone();
            let buffer = match (&self.storage[number], &decl.place) {
                (Some(Storage::New(buffer)), _) => buffer.clone(),
                (Some(Storage::Donor(i)), _) | (None, Place::Input(i)) => {
                    layout.offset += arguments[*i].array.layout().offset;
                    arguments[*i].array.buffer().clone()
                }
                (None, Place::Output { .. } | Place::Workspace(_)) => return Err(wrong()),
            };
            Array::new(buffer, o.dtype, layout)
        };
        program.outputs.iter().map(one).collect()
    }
}

/// Checks that arguments are what the program was compiled for.
pub(crate) fn check_arguments(program: &Program, arguments: &[Argument]) -> Result<()> {
    if arguments.len() != program.inputs {
        let message = format!("{} arguments for a program of {} inputs", arguments.len(), program.inputs);
        return Err(Error::new(ErrorKind::Value, message));
    }
    for decl in &program.buffers {
        let Place::Input(i) = decl.place else { continue };
        let fits =
            arguments.get(i).is_some_and(|a| a.array.dtype() == decl.dtype && a.array.layout().span() == decl.elements);
        if !fits {
            return Err(Error::internal(format!("argument {i} is not what the program was compiled for")));
        }
    }
    Ok(())
}

/// Storage for an output: its donor's, where the call gave it away and nobody else refers to it.
fn output(
    decl: &BufferDecl,
    donor: Option<usize>,
    arguments: &mut [Argument],
    new: &mut impl FnMut(usize) -> Result<Buffer>,
) -> Result<(*mut u8, Storage)> {
    if let Some(i) = donor
        && let Some(argument) = arguments.get_mut(i)
        && argument.donated
        && argument.array.dtype() == decl.dtype
        && argument.array.layout().is_contiguous()
        && argument.array.shape().elements() >= decl.elements
        && argument.array.is_sole_writable()
    {
        return Ok((argument.array.as_ptr(), Storage::Donor(i)));
    }
    let buffer = Arc::new(new(decl.bytes())?);
    Ok((buffer.as_ptr(), Storage::New(buffer)))
}

pub(crate) fn missing() -> Error {
    Error::internal("a program refers to a kernel or buffer that does not exist")
}

/// Checks that every buffer holds what the kernel's parameters reach.
pub(crate) fn check_call(program: &Program, kernel: &Kernel, call: &KernelCall) -> Result<()> {
    let wrong = |what: String| Err(Error::internal(format!("a call of kernel {}: {what}", kernel.name)));
    if call.args.len() != kernel.params.len()
        || call.extents.len() != kernel.extents.len()
        || !kernel.scalars.iter().map(|s| s.dtype).eq(call.scalars.iter().map(|s| s.dtype()))
    {
        return wrong("its arguments are not those of the kernel".to_owned());
    }
    for (param, arg) in kernel.params.iter().zip(&call.args) {
        let Some(decl) = program.buffers.get(arg.buffer.0 as usize) else {
            return wrong(format!("{} is no buffer", param.name));
        };
        let Some((low, high)) = reach(param, &arg.strides, &call.extents) else {
            return wrong(format!("the strides of {} are not as many as it takes", param.name));
        };
        let (low, high) = (low.saturating_add(arg.offset), high.saturating_add(arg.offset));
        let elements = decl.elements;
        let inside = lies_inside(program, decl, low, high);
        if low < high && (!inside || param.dtype != decl.dtype) {
            return wrong(format!("{} reaches {low}..{high} in a buffer of {elements} {}", param.name, decl.dtype));
        }
    }
    Ok(())
}

/// Whether a buffer holds the elements `low..high`, counted from its pointer.
fn lies_inside(program: &Program, decl: &BufferDecl, low: i64, high: i64) -> bool {
    let elements = decl.elements as i64;
    match decl.place {
        // The pointer is the view's first element, from where a negative stride goes down.
        Place::Input(_) => high.saturating_sub(low) <= elements,
        Place::Output { .. } => low >= 0 && high <= elements,
        Place::Workspace(offset) => {
            low >= 0 && high <= elements && offset.saturating_add(decl.bytes()) <= program.workspace_bytes
        }
    }
}

/// Checks that the operand and the result of a sort hold what it reaches.
pub(crate) fn check_sort(program: &Program, operand: &BufferDecl, result: &BufferDecl, call: &SortCall) -> Result<()> {
    let (low, high) = call.layout.bounds();
    let elements = call.layout.shape.elements() as i64;
    let fits = low >= high || lies_inside(program, operand, low, high);
    if fits && lies_inside(program, result, 0, elements) && result.dtype == DType::I64 {
        return Ok(());
    }
    Err(Error::internal(format!("a sort of {} does not fit its buffers", call.layout.shape)))
}

/// Checks that the buffers of products of matrices hold what they reach, and are of their types.
pub(crate) fn check_matmul(program: &Program, call: &MatmulCall) -> Result<()> {
    let m = &call.matmul;
    let holds = |buffer: BufferId, dtype: DType, low: i64, high: i64| {
        let decl = program.buffers.get(buffer.0 as usize);
        decl.is_some_and(|decl| decl.dtype == dtype && lies_inside(program, decl, low, high))
    };
    let [left, right, out] = m.reaches();
    let columns = (0, m.columns as i64);
    let read =
        [(Some(call.left), m.operands, left), (Some(call.right), m.operands, right), (call.bias, m.result, columns)];
    let reads =
        read.into_iter().filter_map(|(arg, dtype, reach)| Some((arg?, dtype, reach))).all(|(arg, dtype, reach)| {
            holds(arg.buffer, dtype, reach.0.saturating_add(arg.offset), reach.1.saturating_add(arg.offset))
        });
    if reads && call.bias.is_some() == m.bias && holds(call.result, m.result, out.0, out.1) {
        return Ok(());
    }
    Err(Error::internal(format!("{call} does not fit its buffers")))
}
