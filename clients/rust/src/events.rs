use std::{collections::HashMap, pin::Pin, time::Duration};

use tokio::sync::mpsc::{Sender, channel};
use tokio::time::sleep;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::Status;
use uuid::Uuid;

use crate::v1::{CancelRequestRequest, DisconnectPolicy, ErrorCode, GenerateRequest, GenerationEvent, ProviderError, ResumeCommand};
use crate::v1::{StreamChunk, StreamGenerateRequest, generation_event::Event, stream_chunk::Delta, stream_generate_request::Command};
use crate::{Client, Error, error::LOST, new_id};

/// How many milliseconds to wait before what has failed is tried again, so many times in a row.
const PAUSES: [u64; 8] = [50, 100, 200, 400, 800, 1600, 3200, 6400];
/// How many events wait for a slow reader here. What comes after them waits at the server.
const BUFFER: usize = 64;

/// The events of generations; see [`Client::events`].
pub type Events = ReceiverStream<Result<GenerationEvent, Error>>;
/// The text of one generation; see [`Client::text`].
pub type Text = Pin<Box<dyn Stream<Item = Result<String, Error>> + Send>>;

impl Client {
    /// Runs generations over one stream, in a task of the current Tokio runtime, and tells their events as they come, each one's in order;
    /// `request_id` says whose an event is. The last of a generation is `completed`, or, where it fails, an error with the id in its
    /// `detail`; the others go on. When the stream is lost, another one goes on from there, and where that is not possible, an error with
    /// a `status` ends them all.
    ///
    /// To drop what this returns cancels what still runs, except what was asked for with `on_disconnect` DRAIN or KEEP. A request that does
    /// not say is sent with KEEP, so that a lost connection does not end it, and one that has no id gets one. UUIDs are sent in lower case,
    /// as events tell them. Where two requests have the same id, nothing is sent, and an error is all that comes.
    pub fn events(&self, requests: impl IntoIterator<Item: Into<GenerateRequest>>) -> Events {
        let generations: Vec<_> = requests.into_iter().map(|request| Generation::new(request.into())).collect();
        let count = generations.len();
        let running: Running = generations.into_iter().map(|known| (known.request.request_id.clone(), known)).collect();
        let (reader, events) = channel(BUFFER);
        if running.len() == count {
            tokio::spawn(run(self.clone(), running, reader));
        } else {
            let message = "two requests have the same id".into();
            let _ = reader.try_send(Err(ProviderError { code: ErrorCode::InvalidRequest.into(), message, ..Default::default() }.into()));
        }
        events.into()
    }

    /// Runs one generation, as [`events`](Self::events) does, and tells its text alone, piece by piece. An answer that starts again at
    /// another provider (MID_STREAM_FALLBACK_RESTART) is an error here.
    pub fn text(&self, request: impl Into<GenerateRequest>) -> Text {
        Box::pin(self.events([request]).filter_map(|event| match event.map(|event| event.event) {
            Ok(Some(Event::Chunk(StreamChunk { delta: Some(Delta::Text(text)), .. }))) => Some(Ok(text)),
            Ok(Some(Event::Discontinuity(_))) => Some(Err(Status::aborted("the answer starts again: read the events").into())),
            event => event.err().map(Err),
        }))
    }

    /// Ends a generation at the server. Tried again where it fails: the request may still be on its way there.
    async fn cancel(self, request_id: String) {
        for pause in PAUSES {
            if self.request().cancel_request(CancelRequestRequest { request_id: request_id.clone() }).await.is_ok() {
                break;
            }
            sleep(Duration::from_millis(pause)).await;
        }
    }
}

/// What is known of a generation that has not ended.
struct Generation {
    request: GenerateRequest,
    /// When its reader leaves.
    runs_on: bool,
    /// How many chunks came.
    next_index: i32,
    /// The other events that came.
    told: Vec<Event>,
}

impl Generation {
    fn new(mut request: GenerateRequest) -> Self {
        let runs_on = matches!(request.on_disconnect(), DisconnectPolicy::Keep | DisconnectPolicy::Drain);
        if request.on_disconnect() == DisconnectPolicy::Unspecified {
            request.set_on_disconnect(DisconnectPolicy::Keep); // so that there is something to go on with
        }
        let id = if request.request_id.is_empty() { new_id() } else { request.request_id };
        request.request_id = if Uuid::try_parse(&id).is_ok() { id.to_lowercase() } else { id };
        Self { request, runs_on, next_index: 0, told: Vec::new() }
    }

    /// Begins it, or goes on with it on another stream.
    fn command(&self) -> StreamGenerateRequest {
        let resume = ResumeCommand { request_id: self.request.request_id.clone(), next_index: self.next_index };
        // Before the first chunk the server may not know the request; where it does, the id attaches to the generation.
        let command = if self.next_index == 0 { Command::Generate(self.request.clone()) } else { Command::Resume(resume) };
        StreamGenerateRequest { command: Some(command) }
    }
}

/// Those that have not ended, by request id.
type Running = HashMap<String, Generation>;
type Reader = Sender<Result<GenerationEvent, Error>>;

/// Tells the generations to their reader until all have ended, or it has gone; what runs then is cancelled.
async fn run(client: Client, mut running: Running, reader: Reader) {
    let ended = tokio::select! {
        ended = tell(&client, &mut running, &reader) => ended,
        () = reader.closed() => Ok(()),
    };
    for (request_id, _) in running.into_iter().filter(|(_, generation)| !generation.runs_on) {
        tokio::spawn(client.clone().cancel(request_id));
    }
    if let Err(status) = ended {
        let _ = reader.send(Err(status.into())).await;
    }
}

/// Tells every event once, whatever becomes of the streams that they come by.
async fn tell(client: &Client, running: &mut Running, reader: &Reader) -> Result<(), Status> {
    let mut failures = 0; // in a row, that brought nothing
    while !running.is_empty()
        && let Err(status) = carry(client, running, reader, &mut failures).await
    {
        let pause = PAUSES.get(failures).filter(|_| LOST.contains(&status.code())).ok_or(status)?;
        failures += 1;
        sleep(Duration::from_millis(*pause)).await;
    }
    Ok(())
}

/// Tells what one stream brings, until all have ended, or it is lost.
async fn carry(client: &Client, running: &mut Running, reader: &Reader, failures: &mut usize) -> Result<(), Status> {
    let commands: Vec<_> = running.values().map(Generation::command).collect();
    let mut messages = client.generation().stream_generate(tokio_stream::iter(commands)).await?.into_inner();
    while !running.is_empty() {
        let message = messages.message().await?.ok_or_else(|| Status::unavailable("the stream ended before the generation did"))?;
        *failures = 0;
        for GenerationEvent { request_id, event } in message.events {
            let Some(known) = running.get_mut(&request_id) else { continue };
            match &event {
                Some(Event::Chunk(chunk)) if chunk.index != known.next_index => return Err(Status::data_loss("a chunk is missing")),
                Some(Event::Chunk(_)) => known.next_index += 1,
                Some(Event::Completed(_) | Event::Failed(_)) => _ = running.remove(&request_id),
                Some(event) if known.told.contains(event) => continue, // what came after the last chunk comes again
                event => known.told.extend((*event).clone()),
            }
            let told = match event {
                Some(Event::Failed(error)) => Err(ProviderError { request_id, ..error }.into()),
                event => Ok(GenerationEvent { request_id, event }),
            };
            let _ = reader.send(told).await;
        }
    }
    Ok(())
}
