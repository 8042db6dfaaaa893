//! What is in memory at a moment, and the fullest of them.
use std::{
    iter::Sum,
    ops::{Add, Mul},
};

/// glibc keeps freed pieces up to this size for later ones and gives larger ones back to the
/// system (mallopt(3), `M_MMAP_THRESHOLD` at most).
const KEPT: u64 = 32 << 20;

/// What is in memory at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Live {
    /// Pieces that stay with the program when they are freed.
    kept: u64,
    /// Larger ones, and pages of files.
    given_back: u64,
}

impl Live {
    /// Memory in one piece.
    pub(super) fn piece(bytes: u64) -> Self {
        if bytes > KEPT { Self::pages(bytes) } else { Self { kept: bytes, given_back: 0 } }
    }

    /// Many small pieces.
    pub(super) fn small(bytes: u64) -> Self {
        Self { kept: bytes, given_back: 0 }
    }

    /// Pages of files, and what is given back.
    pub(super) fn pages(bytes: u64) -> Self {
        Self { kept: 0, given_back: bytes }
    }

    pub(super) fn bytes(self) -> u64 {
        self.kept + self.given_back
    }

    /// The one that takes more.
    pub(super) fn or(self, other: Self) -> Self {
        if other.bytes() > self.bytes() { other } else { self }
    }
}

impl Add for Live {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { kept: self.kept + other.kept, given_back: self.given_back + other.given_back }
    }
}

impl Mul<u64> for Live {
    type Output = Self;
    fn mul(self, times: u64) -> Self {
        Self { kept: self.kept * times, given_back: self.given_back * times }
    }
}

impl Sum for Live {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), Self::add)
    }
}

/// The fullest moment so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peak {
    kept: u64,
    /// Its bytes.
    pub(super) bytes: u64,
}

impl Peak {
    /// Goes through a moment.
    pub(super) fn pass(&mut self, live: Live) {
        self.kept = self.kept.max(live.kept);
        self.bytes = self.bytes.max(self.kept + live.given_back);
    }
}
