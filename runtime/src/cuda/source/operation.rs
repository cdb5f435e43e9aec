//! Arithmetic as C expressions. Functions that are expansions of Kernel IR are printed once, before the kernel, and called, so
//! their bits are those of the CPU's code.

use super::printer::{Lines, Printer};
use super::types::{Names, c_type};
use lazuli_ir::half_code::Half;
use lazuli_ir::kernel::{Emit, Expr, MachineOp, ScalarType, ValueId};
use lazuli_ir::{BinaryCode, BinaryOp, CompareOp, Error, NativeUnary, Result, UnaryCode, UnaryOp};

impl Printer<'_> {
    /// An expression that is no constant and no load.
    pub(super) fn expr(&mut self, v: ValueId, ty: ScalarType, expr: &Expr) -> Result<String> {
        Ok(match expr {
            Expr::Const(_) | Expr::Scalar(_) | Expr::Load { .. } => {
                return Err(Error::internal("a constant or a load as arithmetic"));
            }
            Expr::Index(index) => self.wide_index(index),
            Expr::Unary(op, a) => self.unary(*op, ty, *a)?,
            Expr::Binary(op, a, b) => self.binary(*op, ty, *a, *b)?,
            Expr::Compare(op, a, b) => format!("{} {} {}", self.value(*a), comparison(*op), self.value(*b)),
            Expr::Select(c, a, b) => format!("{} ? {} : {}", self.value(*c), self.value(*a), self.value(*b)),
            Expr::Convert(a) => convert(self.types[a.index()], ty, &self.value(*a)),
            Expr::Machine(op, operands) => {
                let half = match op {
                    MachineOp::RoundF16 => Some(Half::F16),
                    MachineOp::RoundBF16 => Some(Half::BF16),
                    _ => None,
                };
                if let Some(half) = half {
                    self.rounded.insert(v, (half, operands[0]));
                }
                let operands: Vec<String> = operands.iter().map(|o| self.value(*o)).collect();
                format!("{}({})", machine(*op), operands.join(", "))
            }
            Expr::Random(seed, draw, element) => {
                let types = [ScalarType::I64; 3];
                self.function("lz_uniform", &types, ScalarType::F32, "", &mut |e, x| {
                    lazuli_ir::philox_code::uniform(e, x[0], x[1], x[2])
                })?;
                format!("lz_uniform({}, {}, {})", self.value(*seed), self.value(*draw), self.value(*element))
            }
        })
    }

    fn unary(&mut self, op: UnaryOp, ty: ScalarType, a: ValueId) -> Result<String> {
        let value = self.value(a);
        let name = format!("lz_{}", op.name());
        Ok(match op.row().code {
            UnaryCode::Native(native) => return self.native(native, ty, &value),
            UnaryCode::Expand(code) => {
                self.function(&name, &[ty], ty, "", &mut |e, x| code(e, x[0]))?;
                format!("{name}({value})")
            }
            UnaryCode::ExpandBelow(code, limit) => {
                let f = if ty == ScalarType::F32 { "f" } else { "" };
                let large = format!("if ({limit:?}{f} <= fabs{f}(a)) return {};", called(op.name(), ty, &["a"]));
                self.function(&name, &[ty], ty, &large, &mut |e, x| code(e, x[0]))?;
                format!("{name}({value})")
            }
            UnaryCode::Call => called(op.name(), ty, &[&value]),
        })
    }

    fn native(&self, op: NativeUnary, ty: ScalarType, a: &str) -> Result<String> {
        let f = if ty == ScalarType::F32 { "f" } else { "" };
        Ok(match (op, ty.is_float()) {
            // Two minuses would be another operator.
            (NativeUnary::Neg, true) if a.starts_with('-') => format!("-({a})"),
            (NativeUnary::Neg, true) => format!("-{a}"),
            (NativeUnary::Abs, true) => format!("fabs{f}({a})"),
            (NativeUnary::Ceil, true) => format!("ceil{f}({a})"),
            (NativeUnary::Floor, true) => format!("floor{f}({a})"),
            (NativeUnary::Trunc, true) => format!("trunc{f}({a})"),
            (NativeUnary::Round, true) => format!("rint{f}({a})"),
            (NativeUnary::Sqrt, true) => format!("sqrt{f}({a})"),
            (NativeUnary::Neg, false) => format!("lz_neg({a})"),
            (NativeUnary::Abs, false) => format!("lz_abs({a})"),
            (NativeUnary::Not, false) => format!("({})~{a}", c_type(ty)),
            _ => return Err(self.wrong(&format!("{op:?} of {}", ty.name()))),
        })
    }

    fn binary(&mut self, op: BinaryOp, ty: ScalarType, a: ValueId, b: ValueId) -> Result<String> {
        let (x, y) = (self.value(a), self.value(b));
        let name = format!("lz_{}", op.name());
        Ok(match op.code(ty) {
            BinaryCode::Native => return self.native_binary(op, ty, &x, &y),
            BinaryCode::Expand(code) => {
                self.function(&name, &[ty, ty], ty, "", &mut |e, x| code(e, x[0], x[1]))?;
                format!("{name}({x}, {y})")
            }
            BinaryCode::Call if !ty.is_float() => format!("{name}({x}, {y})"),
            BinaryCode::Call => {
                let own = matches!(op, BinaryOp::Remainder | BinaryOp::Fmod | BinaryOp::FloorDiv);
                called(if own { &name } else { op.name() }, ty, &[&x, &y])
            }
        })
    }

    fn native_binary(&self, op: BinaryOp, ty: ScalarType, a: &str, b: &str) -> Result<String> {
        let function = |name: &str| Ok(format!("{name}({a}, {b})"));
        let between = |operator: &str| Ok(format!("{a} {operator} {b}"));
        let (float, truth) = (ty.is_float(), ty == ScalarType::Bool);
        match op {
            BinaryOp::Add if float => between("+"),
            BinaryOp::Sub if float => between("-"),
            BinaryOp::Mul if float => between("*"),
            BinaryOp::Div if float => between("/"),
            BinaryOp::Copysign if ty == ScalarType::F32 => function("copysignf"),
            BinaryOp::Copysign if float => function("copysign"),
            BinaryOp::Add | BinaryOp::Or | BinaryOp::Max if truth => between("|"),
            BinaryOp::Mul | BinaryOp::And | BinaryOp::Min if truth => between("&"),
            BinaryOp::Xor if truth => between("!="),
            BinaryOp::Max => function("lz_max"),
            BinaryOp::Min => function("lz_min"),
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor if !float => {
                let operator = match op {
                    BinaryOp::And => "&",
                    BinaryOp::Or => "|",
                    _ => "^",
                };
                between(operator)
            }
            BinaryOp::ShiftLeft if !float => function("lz_shl"),
            BinaryOp::ShiftRight if !float => function("lz_shr"),
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul if !float && !truth => function(&format!("lz_{}", op.name())),
            BinaryOp::TruncDiv | BinaryOp::FloorDiv | BinaryOp::Remainder | BinaryOp::Fmod if !float => {
                function(&format!("lz_{}", op.name()))
            }
            _ => Err(self.wrong(&format!("{} of {}", op.name(), ty.name()))),
        }
    }

    /// Prints a function of these operands before the kernel, unless the program has it. `first` is a line before its code.
    fn function(
        &mut self,
        name: &str,
        operands: &[ScalarType],
        result: ScalarType,
        first: &str,
        code: &mut dyn FnMut(&mut dyn Emit, &[ValueId]) -> ValueId,
    ) -> Result<()> {
        let types: Vec<&str> = operands.iter().map(|ty| ty.name()).collect();
        let guard = format!("{}_{}", name.to_uppercase(), types.join("_").to_uppercase());
        if !self.functions.known.insert(guard.clone()) {
            return Ok(());
        }
        let arguments = ["a", "b", "c"];
        let outer = (
            std::mem::replace(&mut self.lines, Lines { text: String::new(), depth: 1 }),
            std::mem::replace(&mut self.types, operands.to_vec()),
            std::mem::replace(&mut self.values, arguments[..operands.len()].iter().map(|a| (*a).to_owned()).collect()),
            std::mem::replace(&mut self.names, Names::new()),
        );
        if !first.is_empty() {
            self.line(first);
        }
        let given: Vec<ValueId> = (0..operands.len() as u32).map(ValueId).collect();
        let v = code(self as &mut dyn Emit, &given);
        let value = self.value(v);
        self.line(format!("return {value};"));
        let body = std::mem::take(&mut self.lines.text);
        (self.lines, self.types, self.values, self.names) = outer;
        let list: Vec<String> = operands.iter().zip(arguments).map(|(ty, a)| format!("{} {a}", c_type(*ty))).collect();
        let (result, list) = (c_type(result), list.join(", "));
        // Programs of several kernels have one text.
        self.functions.text.push_str(&format!(
            "#ifndef {guard}\n#define {guard}\n__device__ __forceinline__ {result} {name}({list}) {{\n{body}}}\n#endif\n\n"
        ));
        Ok(())
    }
}

/// A call of a function on doubles, rounded to the type.
fn called(name: &str, ty: ScalarType, operands: &[&str]) -> String {
    match ty {
        ScalarType::F64 => format!("{name}({})", operands.join(", ")),
        _ => {
            let wide: Vec<String> = operands.iter().map(|a| format!("(double){a}")).collect();
            format!("(float){name}({})", wide.join(", "))
        }
    }
}

fn comparison(op: CompareOp) -> &'static str {
    match op {
        CompareOp::Eq => "==",
        CompareOp::Ne => "!=",
        CompareOp::Lt => "<",
        CompareOp::Le => "<=",
        CompareOp::Gt => ">",
        CompareOp::Ge => ">=",
    }
}

fn machine(op: MachineOp) -> &'static str {
    match op {
        MachineOp::Fma => "lz_fma",
        MachineOp::Scale => "lz_scale",
        MachineOp::Bits => "lz_bits",
        MachineOp::OfBits => "lz_of_bits",
        MachineOp::ShiftLeft => "lz_shl",
        MachineOp::ShiftRight => "lz_shr",
        MachineOp::ShiftRightLogical => "lz_ushr",
        MachineOp::RoundF16 => "lz_round_f16",
        MachineOp::RoundBF16 => "lz_round_bf16",
    }
}

fn convert(from: ScalarType, to: ScalarType, a: &str) -> String {
    match (from.is_float(), to) {
        _ if from == to => a.to_owned(),
        (_, ScalarType::Bool) => format!("{a} != 0"),
        (true, ScalarType::U8) => format!("(unsigned char)lz_to_i32({a})"),
        (true, ScalarType::I32) => format!("lz_to_i32({a})"),
        (true, ScalarType::I64) => format!("lz_to_i64({a})"),
        _ => format!("({}){a}", c_type(to)),
    }
}
