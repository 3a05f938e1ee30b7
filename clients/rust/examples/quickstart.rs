//! Streams one answer from a Headrace that listens on localhost:50051, or where the first argument says.

use std::io::{Write, stdout};

use headrace::{Client, StreamExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::args().nth(1).unwrap_or("localhost:50051".into());
    let client = Client::connect(format!("http://{target}")).await?;
    let mut text = client.text("What does a river do?");
    while let Some(piece) = text.next().await {
        print!("{}", piece?);
        let _ = stdout().flush();
    }
    println!();
    Ok(())
}
