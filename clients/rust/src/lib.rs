//! A client of Headrace. It streams answers, runs many generations over one stream, resumes them after a lost connection, cancels them, and
//! gives every error a type. All else is in the generated stubs and messages, [`v1`].
//!
//! ```no_run
//! use headrace::StreamExt;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = headrace::Client::connect("http://localhost:50051").await?;
//! let mut text = client.text("What does a river do?");
//! while let Some(piece) = text.next().await {
//!     print!("{}", piece?);
//! }
//! # Ok(())
//! # }
//! ```

mod client;
mod error;
mod events;

pub use client::{Client, new_id};
pub use error::Error;
pub use events::{Events, Text};
/// What gives [`Events`] and [`Text`] their `next`.
pub use tokio_stream::StreamExt;

/// The generated messages and stubs.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    include!("gen/headrace.v1.rs");
}
