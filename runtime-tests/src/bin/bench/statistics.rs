//! Median, p99 and minimum of a series, in milliseconds.

use std::time::Duration;

#[derive(Clone, Copy)]
pub struct Summary {
    pub median: f64,
    pub p99: f64,
    pub min: f64,
}

impl Summary {
    /// Summary of a series, or `None` for an empty one.
    pub fn of(series: &[Duration]) -> Option<Summary> {
        let mut ms: Vec<f64> = series.iter().map(|taken| taken.as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        let min = *ms.first()?;
        Some(Summary { median: rank(&ms, 50), p99: rank(&ms, 99), min })
    }
}

/// Smallest value that at least `percent` of the sorted values do not exceed.
fn rank(sorted: &[f64], percent: usize) -> f64 {
    let position = (sorted.len() * percent).div_ceil(100);
    sorted[position.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_of_the_nearest_value() {
        let series: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let summary = Summary::of(&series).unwrap();
        assert_eq!((summary.min, summary.median, summary.p99), (1.0, 100.0, 198.0));
    }

    #[test]
    fn a_single_value_is_median_p99_and_minimum() {
        let summary = Summary::of(&[Duration::from_millis(7)]).unwrap();
        assert_eq!((summary.min, summary.median, summary.p99), (7.0, 7.0, 7.0));
        assert!(Summary::of(&[]).is_none());
    }
}
