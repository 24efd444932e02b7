//! Parses sizes in bytes.

/// Parses a number with a binary suffix in any case (`512m`, `1GiB`, `1.5 k`, `.5g`, `1e3`), or -1, like runc's command
/// line.
pub fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    // The unit begins after the last digit, so an exponent is a part of the number.
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (amount, suffix) = text.split_at(end);
    let shift = match suffix.strip_prefix(' ').unwrap_or(suffix).to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    let unsigned = amount.strip_prefix('+').unwrap_or(amount);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    match amount.parse::<i64>() {
        Ok(n) => n.checked_mul(1 << shift),
        Err(_) => {
            let n = amount.parse::<f64>().ok()? * (1_i64 << shift) as f64;
            (n < i64::MAX as f64).then_some(n as i64)
        }
    }
}
