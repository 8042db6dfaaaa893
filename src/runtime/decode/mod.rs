//! Writing: a loop of passes over a model, for one text or several.
//!
//! Each [`pass`] reads a row of every text, its last token, and whatever rows a [`Proposer`] offers
//! behind it. Rows are read apart: each has the bits of being read alone ([`Engine::step`]). The text
//! goes on with the tokens that it would have without an offer, drawn in the same order from the same
//! logits; an offered token that is the one drawn saves a pass, and the memory forgets the others. So a
//! text depends neither on what is offered nor on the texts beside it.
//!
//! A proposer is one file here and a line in this list.
//!
//! [`pass`]: pass::pass
//! [`Engine::step`]: super::Engine::step
mod batch;
mod control;
mod draft;
mod generate;
mod lookup;
mod medusa;
mod mtp;
mod offers;
mod pace;
mod pass;
mod plain;
mod proposer;
mod report;
mod scripted;
mod writing;

pub use batch::{Job, KV_BUDGET, generate_all, generate_all_with, width};
pub use draft::{Draft, DraftError, same_vocabulary};
pub use generate::{NextToken, generate, generate_with};
pub use lookup::Lookup;
pub use medusa::Medusa;
pub use mtp::Mtp;
pub use offers::{Offers, Speculation};
pub use plain::Plain;
pub use proposer::Proposer;
pub use report::{Counts, Position};
pub use scripted::Scripted;
pub use writing::{GenerateError, GenerateSettings, Generated, StopReason};
