//! How long work tells what it does, without knowing where that is shown.

/// Receives the progress of long work. The library reports, the command line shows.
pub trait Progress: Sync {
    /// A new piece of work of `total` units begins, e.g. `("quantize", 13 << 30, Unit::Bytes)`.
    fn start(&self, what: &str, total: u64, unit: Unit);

    /// `done` more units are finished.
    fn advance(&self, done: u64);

    /// The piece of work has ended.
    fn finish(&self);
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Shown as KiB, MiB, GiB.
    Bytes,
    /// Shown as tokens.
    Tokens,
    /// Shown as a plain count.
    Items,
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _: &str, _: u64, _: Unit) {}
    fn advance(&self, _: u64) {}
    fn finish(&self) {}
}
