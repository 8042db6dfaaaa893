//! What this process takes of the memory, by the system's own count.

/// Bytes in memory now, and at most so far; `None` where the system does not tell (other than
/// Linux).
#[expect(clippy::disallowed_methods, reason = "no file of a user's: proc(5)")]
pub(super) fn resident() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kibibytes: u64 =
            line.trim_start_matches(':').trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kibibytes << 10)
    };
    Some((bytes("VmRSS")?, bytes("VmHWM")?))
}
