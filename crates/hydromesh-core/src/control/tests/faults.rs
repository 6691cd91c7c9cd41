//! What goes wrong, at which effect, and how often it did.

use std::fmt;

use super::super::Effect;

/// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("below a usize")
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(self.below(items.len())) }
    }
}

/// What goes wrong when an effect is performed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process ends before it.
    CrashBefore,
    /// The process ends after it and tells nobody.
    CrashAfter,
    /// The process is stopped before it, another takes over, and the first may go on later.
    Paused,
    /// The clock is set forward.
    ClockForward,
    /// The clock is set back.
    ClockBack,
    /// It takes minutes.
    Slow,
    /// It is refused.
    Fails,
    /// It is done and nobody hears of it; of a step: its process is gone, and may go on all the same.
    AnswerLost,
    /// Its answer comes twice.
    AnswerTwice,
    /// Its answer comes after a long time.
    AnswerLate,
}

pub const FAULTS: [Fault; 10] = [
    Fault::CrashBefore,
    Fault::CrashAfter,
    Fault::Paused,
    Fault::ClockForward,
    Fault::ClockBack,
    Fault::Slow,
    Fault::Fails,
    Fault::AnswerLost,
    Fault::AnswerTwice,
    Fault::AnswerLate,
];

/// Effects with the chance of a fault, in percent: rare ones are hit more often.
const EFFECTS: [(&str, usize); 7] = [
    ("append", 2),
    ("decide", 6),
    ("start", 5),
    ("cancel", 40),
    ("deliver", 20),
    ("publish", 1),
    ("dispose", 60),
];

fn column(effect: &Effect) -> usize {
    match effect {
        Effect::Append(_) => 0,
        Effect::Decide(_) => 1,
        Effect::Start(_) => 2,
        Effect::Cancel { .. } => 3,
        Effect::Deliver { .. } => 4,
        Effect::Publish => 5,
        Effect::Dispose(_) => 6,
    }
}

/// Returns whether a fault has a meaning for an effect: an append whose answer is lost ends the process, a cancel is
/// answered by the end of its step, and what is to be shown is a mark in memory that nothing answers.
fn applies(fault: Fault, column: usize) -> bool {
    match fault {
        Fault::Fails => column != 5,
        Fault::AnswerLost | Fault::AnswerTwice | Fault::AnswerLate => matches!(column, 1 | 2 | 4 | 6),
        _ => true,
    }
}

/// How often each fault met each effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matrix([[u64; 7]; 10]);

impl Matrix {
    pub fn add(&mut self, other: &Self) {
        for (row, other) in self.0.iter_mut().zip(&other.0) {
            for (cell, other) in row.iter_mut().zip(other) {
                *cell += other;
            }
        }
    }

    /// Returns the smallest count of a fault that can meet an effect.
    pub fn least(&self) -> u64 {
        let rows = FAULTS.iter().zip(&self.0);
        let cells =
            rows.flat_map(|(fault, row)| row.iter().enumerate().filter(|(at, _)| applies(*fault, *at)));
        cells.map(|(_, count)| *count).min().unwrap_or(0)
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:14}", "")?;
        for (effect, _) in EFFECTS {
            write!(f, "{effect:>10}")?;
        }
        for (fault, row) in FAULTS.iter().zip(&self.0) {
            write!(f, "\n{:14}", format!("{fault:?}"))?;
            for (at, count) in row.iter().enumerate() {
                if applies(*fault, at) {
                    write!(f, "{count:>10}")?;
                } else {
                    write!(f, "{:>10}", "-")?;
                }
            }
        }
        Ok(())
    }
}

/// Who decides what goes wrong, from a seed.
#[derive(Debug, Clone)]
pub struct Chaos {
    pub random: Random,
    pub matrix: Matrix,
}

impl Chaos {
    pub fn new(seed: u64) -> Self {
        // Other numbers than those of the turns.
        Self { random: Random(seed ^ 0xdead_beef_cafe_f00d), matrix: Matrix::default() }
    }

    /// Returns what goes wrong with an effect, if anything does, and counts it.
    pub fn strike(&mut self, effect: &Effect) -> Option<Fault> {
        let at = column(effect);
        if !self.random.chance(EFFECTS[at].1) {
            return None;
        }
        let row = self.random.below(FAULTS.len());
        let fault = FAULTS[row];
        if !applies(fault, at) {
            return None;
        }
        self.matrix.0[row][at] += 1;
        Some(fault)
    }
}
