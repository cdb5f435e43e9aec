//! What a caller may ask of compilation: passes left out, checks after each, an observer.

use lazuli_ir::Graph;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A pass, by name, in the order in which they run.
///
/// Any of them may be left out ([`Options::without`]), and programs mean the same: what finds a wrong pass is the same program
/// with that pass off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pass {
    /// Algebra, constant folding, movement composition and cancellation.
    Simplify,
    /// Equal nodes merge.
    Cse,
    /// Nodes that no output needs go away.
    Dce,
    /// Long reductions down columns become two, so that threads can share them.
    Split,
    /// The order in memory of what is stored is chosen; without it, all is row-major.
    Layout,
    /// Nodes are grouped into kernels; without it, each node is one.
    Fusion,
    /// Each group becomes a kernel. (Nothing runs without it, so it cannot be left out.)
    Lower,
    /// Loops are merged, split, vectorised and spread over threads; without it, kernels stay plain loops.
    Schedule,
    /// Buffers are reused when their value is dead; without it, each value has its own.
    Memory,
}

impl Pass {
    /// Every pass, in the order in which they run.
    pub const ALL: &'static [Pass] = &[
        Pass::Simplify,
        Pass::Cse,
        Pass::Dce,
        Pass::Split,
        Pass::Layout,
        Pass::Fusion,
        Pass::Lower,
        Pass::Schedule,
        Pass::Memory,
    ];

    /// The name in text.
    pub fn name(self) -> &'static str {
        match self {
            Pass::Simplify => "simplify",
            Pass::Cse => "cse",
            Pass::Dce => "dce",
            Pass::Split => "split",
            Pass::Layout => "layout",
            Pass::Fusion => "fusion",
            Pass::Lower => "lower",
            Pass::Schedule => "schedule",
            Pass::Memory => "memory",
        }
    }

    /// The pass of this name.
    pub fn parse(name: &str) -> Option<Pass> {
        Self::ALL.iter().copied().find(|p| p.name() == name)
    }
}

/// Called after each graph pass with the graph it made.
pub type Observer = dyn Fn(Pass, &Graph) + Send + Sync;

/// How to compile. Equality and hashing look at what changes the result: the passes that run, and TF32.
#[derive(Clone)]
pub struct Options {
    off: u32,
    tf32: bool,
    /// Whether the IR is verified after each pass.
    pub verify: bool,
    /// Who looks at the graph after each pass.
    pub observer: Option<Arc<Observer>>,
}

impl Default for Options {
    /// Every pass; `f32` in full; verified in debug builds; no observer.
    fn default() -> Options {
        Options { off: 0, tf32: false, verify: cfg!(debug_assertions), observer: None }
    }
}

impl Options {
    /// The same, without one pass.
    #[must_use]
    pub fn without(mut self, pass: Pass) -> Options {
        self.off |= 1 << pass as u32;
        self
    }

    /// The same, where products of `f32` matrices may round their operands to TF32 (11 significant bits), if the target's routine for
    /// products can; or, by default, may not.
    #[must_use]
    pub fn tf32(mut self, allowed: bool) -> Options {
        self.tf32 = allowed;
        self
    }

    /// Whether products of `f32` matrices may round their operands to TF32.
    pub fn allows_tf32(&self) -> bool {
        self.tf32
    }

    /// Whether a pass runs.
    pub fn runs(&self, pass: Pass) -> bool {
        self.off & (1 << pass as u32) == 0
    }
}

impl PartialEq for Options {
    fn eq(&self, other: &Options) -> bool {
        (self.off, self.tf32) == (other.off, other.tf32)
    }
}

impl Eq for Options {}

impl Hash for Options {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.off, self.tf32).hash(state);
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let off: Vec<Pass> = Pass::ALL.iter().copied().filter(|p| !self.runs(*p)).collect();
        let mut all = f.debug_struct("Options");
        all.field("without", &off).field("tf32", &self.tf32).field("verify", &self.verify).finish_non_exhaustive()
    }
}
