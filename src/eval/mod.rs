//! Measures what compression cost.
