//! Wide strips: loop nests as AVX-512 or AVX2 code, which the Cranelift code of a kernel calls.
//!
//! Cranelift's vectors have 128 bits. Where the machine has wider ones, a nest of loops over loads, stores, arithmetic and
//! reductions becomes a function of its own: from the same Kernel IR and the same expansions of functions, and so with the same
//! bits but for the order in which reductions add. The function gets one argument, a frame of words that the caller filled:
//! addresses, strides, extents, and numbers from outside; results of reductions go back through it. What a nest holds beyond
//! that (contractions, data as indices, checks, calls) leaves it to Cranelift, whose loops inside may still be strips.
//!
//! - `nest`: loops and reductions, and what lies outside.
//! - `operation`: arithmetic.
//! - `memory`: addresses, loads and stores.
//! - `call`: functions that have no vector code.
//! - `code`: instructions on virtual registers, in the lists of loops.
//! - `allocate`: registers. `encode`: bytes. `table`: the instructions.

mod allocate;
mod call;
mod code;
mod encode;
mod memory;
mod nest;
mod operation;
mod table;

pub(super) use call::call_lanes;
pub(super) use nest::{Outside, Root, Word, strip};

use rustc_hash::FxHashMap;

/// The widest vectors that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// 256 bits.
    Avx2,
    /// 512 bits, with masks.
    Avx512,
}

impl Family {
    /// The bytes of a vector.
    fn bytes(self) -> u32 {
        match self {
            Family::Avx2 => 32,
            Family::Avx512 => 64,
        }
    }
}

/// The constants of a strip.
#[derive(Debug)]
struct Pool {
    bytes: Vec<u8>,
    known: FxHashMap<(u64, u32), u32>,
    vectors: FxHashMap<Vec<u8>, u32>,
    family: Family,
    lanes: u32,
    zeros: Option<u32>,
}

impl Pool {
    fn new(family: Family, lanes: u32) -> Pool {
        Pool {
            bytes: Vec::new(),
            known: FxHashMap::default(),
            vectors: FxHashMap::default(),
            family,
            lanes,
            zeros: None,
        }
    }

    /// The offset of a number of `size` bytes: once where instructions spread it, else in every lane.
    fn number(&mut self, bits: u64, size: u32) -> u32 {
        if let Some(offset) = self.known.get(&(bits, size)) {
            return *offset;
        }
        let copies = if self.family == Family::Avx512 { 1 } else { self.lanes };
        let one = &bits.to_le_bytes()[..size as usize];
        let offset = self.vector(&one.repeat(copies as usize), size * copies);
        self.known.insert((bits, size), offset);
        offset
    }

    /// The offset of zeros for all vectors that run together, or those that lanes are picked from.
    fn zeros(&mut self) -> u32 {
        match self.zeros {
            Some(offset) => offset,
            None => {
                let offset = self.vector(&[0; 8 * 64], 64);
                self.zeros = Some(offset);
                offset
            }
        }
    }

    /// The offset of bytes.
    fn vector(&mut self, bytes: &[u8], alignment: u32) -> u32 {
        if let Some(offset) = self.vectors.get(bytes) {
            return *offset;
        }
        let offset = self.bytes.len().next_multiple_of(alignment as usize);
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(bytes);
        if bytes.len() >= 32 {
            self.vectors.insert(bytes.to_vec(), offset as u32);
        }
        offset as u32
    }
}
