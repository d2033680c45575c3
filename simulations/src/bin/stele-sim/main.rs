//! Runs seeds.
#![allow(clippy::print_stdout)]
use stele_simulations::run_seed;
fn main() {
    let seed: u64 = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1);
    let end: u64 = std::env::args().nth(2).and_then(|s| s.parse().ok()).unwrap_or(seed + 1);
    for seed in seed..end {
        let t = std::time::Instant::now();
        let f = run_seed(seed);
        println!(
            "seed {seed} {} steps {} records {} {:?} virtual {:.0}s real {:.2}s {:?}",
            f.hash,
            f.steps,
            f.records,
            f.counts,
            f.virtual_us as f64 / 1e6,
            t.elapsed().as_secs_f64(),
            f.violation
        );
        if f.violation.is_some() {
            for l in f.lines {
                println!("  {l}");
            }
            break;
        }
    }
}
