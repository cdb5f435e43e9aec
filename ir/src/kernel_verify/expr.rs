//! Expressions and the types of their operands.

use super::Verifier;
use crate::kernel::{Access, Expr, MachineOp, Memory, ScalarType, ValueId};
use crate::{Domain, Literal, Result};

impl Verifier<'_> {
    pub(super) fn expr(&mut self, expr: &Expr) -> Result<()> {
        match expr {
            Expr::Const(_) => Ok(()),
            Expr::Scalar(s) => {
                self.check(s.index() < self.kernel.scalars.len(), || format!("there is no scalar parameter {}", s.0))
            }
            Expr::Index(i) => self.index(i),
            Expr::Load { from, index, mask } => {
                if let Some(m) = mask {
                    self.read_as(*m, ScalarType::Bool, "a mask")?;
                }
                self.place(*from, index, mask.is_some())?;
                self.readable(*from)?;
                self.indexed_alike(*from, index)
            }
            Expr::Unary(op, a) => self.in_domain(op.name(), op.row().domain, self.read(*a)?),
            Expr::Binary(op, a, b) => {
                self.in_domain(op.name(), op.domain(), self.read(*a)?)?;
                self.read_as(*b, self.read(*a)?, "an operand")
            }
            Expr::Compare(_, a, b) => self.read_as(*b, self.read(*a)?, "an operand"),
            Expr::Select(c, a, b) => {
                self.read_as(*c, ScalarType::Bool, "a condition")?;
                self.read_as(*b, self.read(*a)?, "an operand")
            }
            Expr::Convert(a) => self.read(*a).map(drop),
            Expr::Machine(op, operands) => self.machine(*op, operands),
            Expr::Random(a, b, c) => {
                [a, b, c].into_iter().try_for_each(|v| self.read_as(*v, ScalarType::I64, "an operand of random"))
            }
        }
    }

    pub(super) fn readable(&self, m: Memory) -> Result<()> {
        let Memory::Param(p) = m else { return Ok(()) };
        let p = &self.kernel.params[p.index()];
        self.check(p.access != Access::Write, || format!("%{} is loaded from, and is mut", p.name))
    }

    pub(super) fn in_domain(&self, name: &str, domain: Domain, ty: ScalarType) -> Result<()> {
        self.check(domain.contains(ty.dtype()), || format!("{name} of {} does not exist", ty.name()))
    }

    pub(super) fn machine(&self, op: MachineOp, operands: &[ValueId]) -> Result<()> {
        self.check(operands.len() == op.arity(), || format!("{} takes {} operands", op.name(), op.arity()))?;
        let first = self.read(operands[0])?;
        let takes = match op {
            MachineOp::Fma | MachineOp::Scale | MachineOp::Bits => first.is_float(),
            MachineOp::RoundF16 | MachineOp::RoundBF16 => first == ScalarType::F32,
            MachineOp::OfBits | MachineOp::ShiftLeft | MachineOp::ShiftRight | MachineOp::ShiftRightLogical => {
                matches!(first, ScalarType::I32 | ScalarType::I64)
            }
        };
        self.check(takes, || format!("{} of {} does not exist", op.name(), first.name()))?;
        operands.iter().try_for_each(|v| self.read_as(*v, first, "an operand"))?;
        match op {
            MachineOp::ShiftLeft | MachineOp::ShiftRight | MachineOp::ShiftRightLogical => {
                let width = 8 * first.dtype().size() as i64;
                let count = self.constants[operands[1].index()].and_then(Literal::as_i64);
                let fits = count.is_some_and(|n| (0..width).contains(&n));
                self.check(fits, || format!("{} by what is no constant below the width", op.name()))
            }
            MachineOp::Fma
            | MachineOp::Scale
            | MachineOp::Bits
            | MachineOp::OfBits
            | MachineOp::RoundF16
            | MachineOp::RoundBF16 => Ok(()),
        }
    }
}
