//! Running a compiled program by the kernels' scalar evaluator, with its memory plan taken at its word.
//!
//! Each buffer has storage of its own, but a write destroys every other buffer whose bytes the plan gave to the one written: a
//! value that the plan lets die too early is found as garbage.

use lazuli_ir::kernel_eval::{KernelBuffer, KernelData, ThreadOrder, evaluate};
use lazuli_ir::program::{BufferDecl, MatmulCall, MatrixArg, OutputDecl, Place, Program, Step};
use lazuli_ir::reference::{Dense, apply};
use lazuli_ir::{DType, Error, Layout, Literal, Op, Result, TensorType};

/// The outputs of a program. The inputs lie in memory as `layouts` say; all of them are donated.
pub fn interpret(program: &Program, inputs: &[Dense], layouts: &[Layout], order: ThreadOrder) -> Result<Vec<Dense>> {
    let mut storage: Vec<KernelData> = Vec::new();
    // Where in each storage the pointer points that kernels are given: an input's at the first element of its view.
    let mut first: Vec<i64> = Vec::new();
    for b in &program.buffers {
        let (data, at) = match b.place {
            Place::Input(i) => lay_out(&inputs[i], &layouts[i])?,
            Place::Output { .. } | Place::Workspace(_) => (garbage(b), 0),
        };
        storage.push(data);
        first.push(at);
    }
    for step in &program.steps {
        let step = match step {
            Step::Kernel(call) => call,
            Step::Sort(call) => {
                let operand = call.operand.0 as usize;
                let keys = gather(&storage[operand], first[operand], &call.layout, dtype_of(program, call.operand.0))?;
                let sorted = apply(&Op::Sort { dim: call.dim, descending: call.descending }, &[&keys])?;
                write(
                    program,
                    &mut storage,
                    call.result.0 as usize,
                    lay_out(&sorted, &Layout::contiguous(sorted.ty().shape.clone()))?.0,
                );
                continue;
            }
            Step::Matmul(call) => {
                let result = multiply(program, call, &storage, &first)?;
                for (buffer, access) in program.accesses(step) {
                    let at = buffer.0 as usize;
                    if access != lazuli_ir::kernel::Access::Read {
                        let data = if buffer == call.result { result.clone() } else { garbage(&program.buffers[at]) };
                        write(program, &mut storage, at, data);
                    }
                }
                continue;
            }
        };
        let kernel = program.kernels.get(step.kernel).ok_or_else(|| Error::internal("no such kernel"))?;
        let mut buffers: Vec<KernelBuffer> = step
            .args
            .iter()
            .map(|a| KernelBuffer {
                data: storage[a.buffer.0 as usize].clone(),
                offset: (first[a.buffer.0 as usize] + a.offset) as usize,
                strides: a.strides.to_vec(),
            })
            .collect();
        evaluate(kernel, &mut buffers, &step.extents, &step.scalars, order)?;
        for ((a, b), p) in step.args.iter().zip(buffers).zip(&kernel.params) {
            if p.access != lazuli_ir::kernel::Access::Read {
                write(program, &mut storage, a.buffer.0 as usize, b.data);
            }
        }
    }
    let at = |o: &OutputDecl| o.buffer.0 as usize;
    program.outputs.iter().map(|o| gather(&storage[at(o)], first[at(o)], &o.layout, o.dtype)).collect()
}

/// What a product of matrices writes.
fn multiply(program: &Program, call: &MatmulCall, storage: &[KernelData], first: &[i64]) -> Result<KernelData> {
    let beyond = std::cell::Cell::new(false);
    let read = |arg: MatrixArg| {
        let (data, at) = (&storage[arg.buffer.0 as usize], first[arg.buffer.0 as usize] + arg.offset);
        let beyond = &beyond;
        move |i: i64| {
            data.get((at + i) as usize).unwrap_or_else(|| {
                beyond.set(true);
                Literal::zero(data.dtype())
            })
        }
    };
    let mut result = garbage(&program.buffers[call.result.0 as usize]);
    let at = first[call.result.0 as usize];
    let (left, right, bias) = (read(call.left), read(call.right), read(call.bias.unwrap_or(call.left)));
    call.matmul.evaluate(&left, &right, &bias, &mut |i, value| {
        if result.set((at + i) as usize, value).is_none() {
            beyond.set(true);
        }
    });
    if beyond.get() {
        return Err(Error::internal(format!("{call} reaches beyond its buffers")));
    }
    Ok(result)
}

fn dtype_of(program: &Program, buffer: u32) -> DType {
    program.buffers[buffer as usize].dtype
}

/// Writes a buffer, and destroys what the plan gave the same bytes.
fn write(program: &Program, storage: &mut [KernelData], written: usize, data: KernelData) {
    storage[written] = data;
    for (other, data) in storage.iter_mut().enumerate() {
        if other != written && share(program, written, other) {
            *data = garbage(&program.buffers[other]);
        }
    }
}

/// What uninitialised memory holds.
fn garbage(b: &BufferDecl) -> KernelData {
    let mut data = KernelData::zeros(b.dtype, b.elements);
    (0..b.elements).for_each(|i| _ = data.set(i, crate::data::garbage(b.dtype)));
    data
}

/// Whether the plan gave two buffers some of the same bytes.
fn share(program: &Program, a: usize, b: usize) -> bool {
    let (a, b) = (&program.buffers[a], &program.buffers[b]);
    match (&a.place, &b.place) {
        (Place::Workspace(x), Place::Workspace(y)) => *x < y + b.bytes() && *y < x + a.bytes(),
        (Place::Output { donor: Some(i) }, Place::Input(j)) | (Place::Input(j), Place::Output { donor: Some(i) }) => {
            i == j
        }
        (Place::Input(_) | Place::Output { .. } | Place::Workspace(_), _) => false,
    }
}

/// The storage in which a view's elements are these, and where in it the first one is.
fn lay_out(value: &Dense, layout: &Layout) -> Result<(KernelData, i64)> {
    let (low, high) = layout.bounds();
    let first = layout.offset - low;
    let mut data = KernelData::zeros(value.ty().dtype, (high - low).max(0) as usize);
    for (p, l) in layout.numbers().zip(value.literals()) {
        data.set((p - low) as usize, l).ok_or_else(|| Error::internal("an element beyond its storage"))?;
    }
    Ok((data, first))
}

fn gather(data: &KernelData, first: i64, layout: &Layout, dtype: DType) -> Result<Dense> {
    let elements: Option<Vec<Literal>> = layout.numbers().map(|p| data.get((p + first) as usize)).collect();
    let elements = elements.ok_or_else(|| Error::internal("an element beyond its storage"))?;
    Dense::of_literals(&TensorType { shape: layout.shape.clone(), dtype }, elements)
}
