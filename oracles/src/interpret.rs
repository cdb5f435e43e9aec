//! Running a compiled program by the kernels' scalar evaluator, with its memory plan taken at its word.
//!
//! Each buffer has storage of its own, but a write destroys every other buffer whose bytes the plan gave to the one written: a
//! value that the plan lets die too early is found as garbage.

use lazuli_ir::kernel_eval::{KernelBuffer, KernelData, ThreadOrder, evaluate};
use lazuli_ir::program::{BufferDecl, Place, Program};
use lazuli_ir::reference::Dense;
use lazuli_ir::{Error, Layout, Literal, Result, TensorType};

/// The outputs of a program. The inputs lie in memory as `layouts` say; all of them are donated.
pub fn interpret(program: &Program, inputs: &[Dense], layouts: &[Layout], order: ThreadOrder) -> Result<Vec<Dense>> {
    let mut storage: Vec<KernelData> = Vec::new();
    for b in &program.buffers {
        storage.push(match b.place {
            Place::Input(i) => lay_out(&inputs[i], &layouts[i])?,
            Place::Output { .. } | Place::Workspace(_) => garbage(b),
        });
    }
    for step in &program.steps {
        let kernel = program.kernels.get(step.kernel).ok_or_else(|| Error::internal("no such kernel"))?;
        let mut buffers: Vec<KernelBuffer> = step
            .args
            .iter()
            .map(|a| KernelBuffer {
                data: storage[a.buffer.0 as usize].clone(),
                offset: a.offset as usize,
                strides: a.strides.to_vec(),
            })
            .collect();
        evaluate(kernel, &mut buffers, &step.extents, &step.scalars, order)?;
        for ((a, b), p) in step.args.iter().zip(buffers).zip(&kernel.params) {
            if p.access == lazuli_ir::kernel::Access::Write {
                let written = a.buffer.0 as usize;
                storage[written] = b.data;
                for (other, data) in storage.iter_mut().enumerate() {
                    if other != written && share(program, written, other) {
                        *data = garbage(&program.buffers[other]);
                    }
                }
            }
        }
    }
    program.outputs.iter().map(|o| gather(&storage[o.buffer.0 as usize], &o.layout, o.dtype)).collect()
}

/// What uninitialised memory holds.
fn garbage(b: &BufferDecl) -> KernelData {
    match KernelData::zeros(b.dtype, b.elements) {
        KernelData::F32(v) => KernelData::F32(v.into_iter().map(|_| f32::from_bits(0x7fc0_dead)).collect()),
        KernelData::I64(v) => KernelData::I64(v.into_iter().map(|_| 0x5eed_dead_beef).collect()),
        KernelData::Bool(v) => KernelData::Bool(v.into_iter().map(|_| true).collect()),
    }
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

fn positions(layout: &Layout) -> Vec<usize> {
    let extents = layout.shape.extents();
    (0..layout.shape.elements())
        .map(|n| {
            let mut rest = n;
            let mut at = layout.offset;
            for (extent, stride) in extents.iter().zip(&layout.strides).rev() {
                at += (rest % extent) as i64 * stride;
                rest /= extent;
            }
            at as usize
        })
        .collect()
}

/// The storage in which a view's elements are these.
fn lay_out(value: &Dense, layout: &Layout) -> Result<KernelData> {
    let at = positions(&Layout { offset: 0, ..layout.clone() });
    let n = at.iter().max().map_or(0, |m| m + 1).max(layout.span());
    let mut data = KernelData::zeros(value.ty().dtype, n);
    for (p, l) in at.into_iter().zip(value.literals()) {
        match (&mut data, l) {
            (KernelData::F32(v), Literal::F32(x)) => v[p] = x,
            (KernelData::I64(v), Literal::I64(x)) => v[p] = x,
            (KernelData::Bool(v), Literal::Bool(x)) => v[p] = x,
            _ => return Err(Error::internal("a value of another dtype than its type")),
        }
    }
    Ok(data)
}

fn gather(data: &KernelData, layout: &Layout, dtype: lazuli_ir::DType) -> Result<Dense> {
    let at = positions(layout);
    let shape = layout.shape.clone();
    let out = match data {
        KernelData::F32(v) => Dense::from_vec(at.iter().map(|&p| v[p]).collect::<Vec<f32>>(), shape)?,
        KernelData::I64(v) => Dense::from_vec(at.iter().map(|&p| v[p]).collect::<Vec<i64>>(), shape)?,
        KernelData::Bool(v) => Dense::from_vec(at.iter().map(|&p| v[p]).collect::<Vec<bool>>(), shape)?,
    };
    debug_assert_eq!(*out.ty(), TensorType { shape: layout.shape.clone(), dtype });
    Ok(out)
}
