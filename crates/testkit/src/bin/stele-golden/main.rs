//! `cargo xtask golden-log`: the next generation of the golden history.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use stele_codec::Verifier;
use stele_testkit::history::golden;

/// Where the generations are, from the top of the checkout.
const FOLDER: &str = "crates/testkit/golden";
/// The log that the first generation goes on with.
const EARLIER: &str = "crates/codec/tests/golden/earlier/log.hex";

/// Write the next generation of the golden history.
#[derive(Parser)]
#[command(name = "cargo xtask golden-log", bin_name = "cargo xtask golden-log")]
struct Cli {
    /// The top of the checkout
    #[arg(long, value_name = "DIR")]
    checkout: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let Cli { checkout } = Cli::parse();
    let folder = checkout.join(FOLDER);
    let before = golden::generations(&folder)?;
    // A program that cannot read the history as it is has nothing to add to it.
    verify(&before).context("the generations there are do not verify")?;
    let earlier = checkout.join(EARLIER);
    let earlier =
        std::fs::read_to_string(&earlier).with_context(|| format!("cannot read {}", earlier.display()))?;
    let next = golden::next(&before, golden::earlier(&earlier)?)?;
    let files = next.write(&folder)?;
    verify(&golden::generations(&folder)?).context("what was written does not verify")?;
    let index = &next.index;
    println!(
        "Generation {}: records {} to {} in {} bytes, {} State digests, {} checkpoints.",
        index.generation,
        index.first,
        index.last,
        next.bytes()?.len(),
        index.state_digests,
        index.checkpoints.len()
    );
    for (kind, schemas) in &index.kinds {
        let schemas: Vec<_> =
            schemas.iter().map(|(schema, count)| format!("{count} of schema {schema}")).collect();
        println!("    {kind:<24} {}", schemas.join(", "));
    }
    for file in files {
        println!("{}", file.display());
    }
    println!(
        "Commit both files. From then on they never change: docs/log-format.md, \"The golden history\"."
    );
    Ok(())
}

fn verify(generations: &[golden::Generation]) -> anyhow::Result<()> {
    let mut verifier = Verifier::new();
    for generation in generations {
        generation.index.verify(&generation.records, &mut verifier, |_, _| {})?;
    }
    Ok(())
}
