//! Calls from strips: a strip keeps values in every register, so what it calls keeps them all.

use crate::cpu::library;
use std::arch::naked_asm;

/// What a strip passes: the arguments and results of its lanes, and which of them are wanted of which operation.
#[repr(C, align(64))]
pub(super) struct Lanes {
    /// Of 8 lanes, or twice as many `f32`.
    arguments: [f64; 8],
    results: [f64; 8],
    wanted: u32,
    operation: u32,
    /// Bytes of a lane.
    size: u32,
}

/// Where in [`Lanes`] its fields lie.
pub(super) const RESULTS: i64 = std::mem::offset_of!(Lanes, results) as i64;
pub(super) const WANTED: i64 = std::mem::offset_of!(Lanes, wanted) as i64;
pub(super) const OPERATION: i64 = std::mem::offset_of!(Lanes, operation) as i64;
pub(super) const SIZE: i64 = std::mem::offset_of!(Lanes, size) as i64;
/// The bytes of [`Lanes`].
pub(super) const BYTES: u32 = size_of::<Lanes>() as u32;

/// Computes the lanes that are wanted.
unsafe extern "C" fn compute(lanes: *mut Lanes) {
    // SAFETY: the strip passes memory of its own stack that it has filled.
    let lanes = unsafe { &mut *lanes };
    let (operation, wanted) = (i64::from(lanes.operation), |lane: &usize| lanes.wanted >> lane & 1 == 1);
    if lanes.size == 8 {
        for lane in (0..lanes.arguments.len()).filter(wanted) {
            lanes.results[lane] = library::unary(operation, lanes.arguments[lane]);
        }
        return;
    }
    let arguments: &[f32; 16] = bytemuck::cast_ref(&lanes.arguments);
    let results: &mut [f32; 16] = bytemuck::cast_mut(&mut lanes.results);
    for lane in (0..arguments.len()).filter(wanted) {
        results[lane] = library::unary(operation, f64::from(arguments[lane])) as f32;
    }
}

/// Takes the address of [`Lanes`] in `rax`, and keeps all registers but `rax` and `rcx`. Needs AVX-512.
///
/// # Safety
/// Called by strips alone.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn call_lanes() {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "sub rsp, 2240",
        "and rsp, -64",
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
        "vmovaps [rsp + 64*\\n], zmm\\n",
        ".endr",
        ".irp n, 0,1,2,3,4,5,6,7",
        "kmovq [rsp + 2048 + 8*\\n], k\\n",
        ".endr",
        "mov [rsp + 2112], rdx",
        "mov [rsp + 2120], rsi",
        "mov [rsp + 2128], rdi",
        "mov [rsp + 2136], r8",
        "mov [rsp + 2144], r9",
        "mov [rsp + 2152], r10",
        "mov [rsp + 2160], r11",
        "mov rdi, rax",
        "vzeroupper",
        "call {compute}",
        "mov rdx, [rsp + 2112]",
        "mov rsi, [rsp + 2120]",
        "mov rdi, [rsp + 2128]",
        "mov r8, [rsp + 2136]",
        "mov r9, [rsp + 2144]",
        "mov r10, [rsp + 2152]",
        "mov r11, [rsp + 2160]",
        ".irp n, 0,1,2,3,4,5,6,7",
        "kmovq k\\n, [rsp + 2048 + 8*\\n]",
        ".endr",
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
        "vmovaps zmm\\n, [rsp + 64*\\n]",
        ".endr",
        "mov rsp, rbp",
        "pop rbp",
        "ret",
        compute = sym compute,
    )
}
