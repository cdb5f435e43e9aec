//! Registers for virtual registers: one linear scan over intervals, the cheapest of those that overlap going to memory.
//!
//! An interval reaches from the first write to the last read, and over every loop that it was written before and is used in.
//! A read happens before the write of the same instruction, so the result may take the register of an operand that ends there.
//! Constants that get no register are read from memory where they are used.

use super::code::{Class, Inst, Known, Label, Op, Reg};
use super::table::Vector;
use rustc_hash::FxHashMap;

/// Where a virtual register lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A register of its class.
    Register(u32),
    /// Bytes of the stack.
    Stack(u32),
    /// A constant of the pool.
    Pool(u32),
    /// A number of the frame.
    Frame(u32),
    /// Never used.
    Nowhere,
}

/// Registers of each class that a scan may give out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files {
    pub vector: &'static [u32],
    pub mask: &'static [u32],
    pub general: &'static [u32],
}

#[derive(Clone, Copy, Debug)]
struct Interval {
    reg: u32,
    start: u32,
    end: u32,
    weight: f32,
}

/// The places of all virtual registers, and the bytes of stack they take.
pub(super) struct Places {
    pub of: Vec<Place>,
    pub stack_bytes: u32,
}

/// Assigns registers. Chooses the forms of multiply-adds on the way, by which operand ends there.
pub(super) fn allocate(insts: &mut [Inst], known: &[Known], files: Files, fold: bool) -> Places {
    let loops = loops(insts);
    let before = intervals(insts, known, &loops);
    choose_forms(insts, &before);
    // A form decides which operand must outlive the write.
    let mut intervals: Vec<Interval> = intervals(insts, known, &loops).into_iter().flatten().collect();
    let rematerialised = rematerialised(insts, known, fold);
    intervals.sort_by_key(|i| (i.start, i.reg));
    let mut of = vec![Place::Nowhere; known.len()];
    let hints = hints(insts);
    let mut stack_bytes = 0;
    for class in [Kind::Vector, Kind::Mask, Kind::General] {
        let file = match class {
            Kind::Vector => files.vector,
            Kind::Mask => files.mask,
            Kind::General => files.general,
        };
        let own = intervals.iter().filter(|i| kind(known[i.reg as usize].class) == class);
        scan(own, file, &hints, &rematerialised, &mut of);
    }
    for i in &intervals {
        if of[i.reg as usize] != Place::Nowhere {
            continue;
        }
        of[i.reg as usize] = match rematerialised[i.reg as usize] {
            Some(place) => place,
            None => {
                let bytes = match known[i.reg as usize].class {
                    Class::Vector(bytes) => bytes,
                    Class::Mask | Class::General => 8,
                };
                stack_bytes = u32::next_multiple_of(stack_bytes, bytes) + bytes;
                Place::Stack(stack_bytes - bytes)
            }
        };
    }
    Places { of, stack_bytes: stack_bytes.next_multiple_of(64) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Vector,
    Mask,
    General,
}

fn kind(class: Class) -> Kind {
    match class {
        Class::Vector(_) => Kind::Vector,
        Class::Mask => Kind::Mask,
        Class::General => Kind::General,
    }
}

/// Ranges of instructions that run again.
fn loops(insts: &[Inst]) -> Vec<(u32, u32)> {
    let mut labels: FxHashMap<Label, u32> = FxHashMap::default();
    let mut loops = Vec::new();
    for (i, inst) in insts.iter().enumerate() {
        match inst.op {
            Op::Label(l) => {
                labels.insert(l, i as u32);
            }
            Op::Branch(_, _, l) => {
                if let Some(&to) = labels.get(&l) {
                    loops.push((to, i as u32));
                }
            }
            _ => {}
        }
    }
    // Inner ones first: what reaches over an inner loop may thereby reach into an outer one's end.
    loops.sort_by_key(|(a, b)| b - a);
    loops
}

fn intervals(insts: &[Inst], known: &[Known], loops: &[(u32, u32)]) -> Vec<Option<Interval>> {
    let mut out: Vec<Option<Interval>> = vec![None; known.len()];
    let mut depth = vec![0u8; insts.len()];
    for &(a, b) in loops {
        for d in &mut depth[a as usize..=b as usize] {
            *d += 1;
        }
    }
    let mut note = |r: Reg, at: u32, depth: u8| {
        let weight = 8f32.powi(i32::from(depth.min(6)));
        match &mut out[r.0 as usize] {
            Some(i) => {
                i.end = i.end.max(at);
                i.weight += weight;
            }
            empty => *empty = Some(Interval { reg: r.0, start: at, end: at, weight }),
        }
    };
    for (i, inst) in insts.iter().enumerate() {
        let at = 2 * i as u32;
        let tied = inst.is_tied();
        for (n, r) in inst.reads().enumerate() {
            // Where the result takes the first operand's register, it is written before the others are read.
            note(r, if tied && n > 0 { at + 1 } else { at }, depth[i]);
        }
        if let Some(r) = inst.result {
            note(r, at + 1, depth[i]);
        }
    }
    for &(a, b) in loops {
        let (first, last) = (2 * a, 2 * b + 1);
        for i in out.iter_mut().flatten() {
            if i.start < first && i.end >= first {
                i.end = i.end.max(last);
            }
        }
    }
    out
}

/// `fma(a, b, c)` overwrites `c` where that ends here, else `a` (or `b`, the product being the same).
fn choose_forms(insts: &mut [Inst], intervals: &[Option<Interval>]) {
    for (i, inst) in insts.iter_mut().enumerate() {
        let Op::Fma(bytes, wide) = inst.op else { continue };
        let ends = |r: Reg| intervals[r.0 as usize].is_some_and(|x| x.end <= 2 * i as u32);
        let [a, b, c] = [inst.operands[0], inst.operands[1], inst.operands[2]];
        let (form213, form231) = match wide {
            false => (Vector::Fma213F32, Vector::Fma231F32),
            true => (Vector::Fma213F64, Vector::Fma231F64),
        };
        let (form, operands) =
            if inst.result == Some(c) || (ends(c) && inst.result != Some(a) && inst.result != Some(b)) {
                (form231, [c, a, b])
            } else if inst.result != Some(b) && (ends(a) || !ends(b)) {
                (form213, [a, b, c])
            } else {
                (form213, [b, a, c])
            };
        inst.op = Op::Vector(form, bytes);
        inst.operands = operands.into_iter().collect();
    }
}

/// Where values lie in memory from the start.
fn rematerialised(insts: &[Inst], known: &[Known], fold: bool) -> Vec<Option<Place>> {
    let mut out = vec![None; known.len()];
    for inst in insts {
        let Some(r) = inst.result else { continue };
        out[r.0 as usize] = match inst.op {
            Op::Constant(offset) if !known[r.0 as usize].changes => Some(Place::Pool(offset)),
            Op::Spread(word) if fold && !known[r.0 as usize].changes => Some(Place::Frame(word)),
            Op::Word(word) if !known[r.0 as usize].changes => Some(Place::Frame(word)),
            _ => None,
        };
    }
    out
}

/// The operand whose register a result would best take.
fn hints(insts: &[Inst]) -> FxHashMap<u32, u32> {
    let mut hints = FxHashMap::default();
    for inst in insts {
        if let (Some(r), Some(first)) = (inst.result, inst.operands.first())
            && (inst.is_tied() || matches!(inst.op, Op::Copy | Op::Vector(Vector::Move, _)))
        {
            hints.entry(r.0).or_insert(first.0);
        }
    }
    hints
}

fn scan<'a>(
    intervals: impl Iterator<Item = &'a Interval>,
    file: &[u32],
    hints: &FxHashMap<u32, u32>,
    rematerialised: &[Option<Place>],
    of: &mut [Place],
) {
    let mut active: Vec<(Interval, u32)> = Vec::new();
    // What is loaded where it is used costs little more than a register.
    let cost = |i: &Interval| {
        let length = (i.end - i.start + 1) as f32;
        let factor = if rematerialised[i.reg as usize].is_some() { 0.25 } else { 1.0 };
        i.weight * factor / length.sqrt()
    };
    for &i in intervals {
        active.retain(|(x, _)| x.end >= i.start);
        let free = |r: &&u32| active.iter().all(|(_, taken)| taken != *r);
        let hinted = hints.get(&i.reg).and_then(|h| match of[*h as usize] {
            Place::Register(r) if file.contains(&r) && active.iter().all(|(_, taken)| *taken != r) => Some(r),
            _ => None,
        });
        if let Some(r) = hinted.or_else(|| file.iter().find(free).copied()) {
            of[i.reg as usize] = Place::Register(r);
            active.push((i, r));
            continue;
        }
        // The cheapest of all goes to memory.
        let cheapest = active.iter().enumerate().min_by(|(_, a), (_, b)| cost(&a.0).total_cmp(&cost(&b.0)));
        if let Some((n, &(x, r))) = cheapest
            && cost(&x) < cost(&i)
        {
            of[x.reg as usize] = Place::Nowhere;
            active.remove(n);
            of[i.reg as usize] = Place::Register(r);
            active.push((i, r));
        }
    }
}
