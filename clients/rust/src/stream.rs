use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::{collections::HashMap, pin::Pin, time::Duration};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::{Stream, StreamExt, wrappers::UnboundedReceiverStream};
use tonic::{Request, Status};

use crate::v1::{CancelRequestRequest, DisconnectPolicy, GenerateRequest, GenerationEvent, ResumeCommand, StreamChunk};
use crate::v1::{StreamGenerateRequest, generation_event::Event, stream_chunk::Delta, stream_generate_request::Command};
use crate::{Client, Error, error::LOST};

/// How many milliseconds to wait before what has failed is tried again, so many times in a row.
const PAUSES: [u64; 8] = [50, 100, 200, 400, 800, 1600, 3200, 6400];

type Told<E> = Result<GenerationEvent, E>;

/// Runs generations over one stream. When that is lost, each goes on over a stream of its own, and so do those that are started later.
/// Generations may outlive the session that they were started by.
#[derive(Clone, Debug)]
pub struct Session {
    client: Client,
    commands: UnboundedSender<StreamGenerateRequest>,
    readers: Weak<Readers>,
}

/// Who reads a stream, by request id. Gone when the stream is over, of whose status they have been told, if it is not OK.
type Readers = Mutex<HashMap<String, UnboundedSender<Told<Status>>>>;

impl Session {
    pub(crate) fn open(client: Client) -> Self {
        let (commands, outgoing) = unbounded_channel();
        let readers = Arc::new(Readers::default());
        let session = Self { client: client.clone(), commands, readers: Arc::downgrade(&readers) };
        tokio::spawn(async move {
            if let Err(status) = carry(client, outgoing, &readers).await {
                readers.lock().unwrap().values().for_each(|reader| _ = reader.send(Err(status.clone())));
            }
        });
        session
    }

    /// Begins a generation. One without a request id gets one.
    pub fn start(&self, request: impl Into<GenerateRequest>) -> Generation {
        let mut request = request.into();
        if request.request_id.is_empty() {
            request.request_id = uuid::Uuid::new_v4().to_string();
        }
        let runs_on = matches!(request.on_disconnect(), DisconnectPolicy::Keep | DisconnectPolicy::Drain);
        if request.on_disconnect() == DisconnectPolicy::Unspecified {
            request.set_on_disconnect(DisconnectPolicy::Keep); // so that there is something to go on with
        }
        let (reader, events) = unbounded_channel();
        let generation = Generation { request: request.clone(), client: self.client.clone(), events };
        let first = self.send(&request.request_id, Command::Generate(request.clone()));
        tokio::spawn(run(self.client.clone(), request, first, reader, runs_on));
        generation
    }

    /// The events that a command brings. There are none where the stream is over, or where somebody reads this generation from it already.
    fn send(&self, request_id: &str, command: Command) -> Source {
        let (reader, events) = unbounded_channel();
        let readers = self.readers.upgrade().unwrap_or_default();
        let mut readers = readers.lock().unwrap();
        readers.retain(|_, reader| !reader.is_closed());
        readers.entry(request_id.into()).or_insert_with(|| {
            let _ = self.commands.send(StreamGenerateRequest { command: Some(command) });
            reader
        });
        events
    }
}

/// Sends the commands, and hands out what comes, until the stream is over.
async fn carry(client: Client, commands: UnboundedReceiver<StreamGenerateRequest>, readers: &Readers) -> Result<(), Status> {
    let mut request = Request::new(UnboundedReceiverStream::new(commands));
    if let Some(deadline) = client.deadline {
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    }
    let mut messages = client.generation().stream_generate(request).await?.into_inner();
    while let Some(message) = messages.message().await? {
        let readers = readers.lock().unwrap();
        for event in message.events {
            let _ = readers.get(&event.request_id).is_some_and(|reader| reader.send(Ok(event)).is_ok());
        }
    }
    Ok(())
}

/// One generation: a stream of its events as they come, `completed` last. One that fails ends with an error.
///
/// When its stream is lost, it goes on over another one at the chunk that it has reached, unless `on_disconnect` is CANCEL; not set, it is
/// sent as KEEP. To drop it before its end cancels it, unless its caller has set KEEP or DRAIN.
#[derive(Debug)]
pub struct Generation {
    /// As it was sent, with its id.
    pub request: GenerateRequest,
    client: Client,
    events: UnboundedReceiver<Told<Error>>,
}

impl Generation {
    /// Asks the server to end the generation, in a task of the current Tokio runtime. The last event tells how it ended.
    pub fn cancel(&self) {
        tokio::spawn(cancel(self.client.clone(), self.request.request_id.clone()));
    }

    /// The pieces of its text alone. Where an answer starts again at another provider (MID_STREAM_FALLBACK_RESTART), an error comes.
    pub fn text(self) -> impl Stream<Item = Result<String, Error>> + Send + Unpin {
        self.filter_map(|event| match event.map(|event| event.event) {
            Ok(Some(Event::Chunk(StreamChunk { delta: Some(Delta::Text(text)), .. }))) => Some(Ok(text)),
            Ok(Some(Event::Discontinuity(_))) => Some(Err(Status::aborted("the answer starts again: read the events").into())),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }
}

impl Stream for Generation {
    type Item = Result<GenerationEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_recv(context)
    }
}

type Source = UnboundedReceiver<Told<Status>>;
type Reader = UnboundedSender<Told<Error>>;

/// Tells the generation to its reader, until it has ended, or its time is over, or the reader has gone.
async fn run(client: Client, request: GenerateRequest, first: Source, reader: Reader, runs_on: bool) {
    let last = tokio::select! {
        last = tell(&client, &request, first, &reader) => last,
        () = reader.closed() => Err(Status::cancelled("nobody reads it").into()),
        () = sleep_until(client.deadline.unwrap_or_else(Instant::now)), if client.deadline.is_some() =>
            Err(Status::deadline_exceeded("the time of the session is over").into()),
    };
    let may_run = matches!(&last, Err(error) if error.status.is_some()); // no event has told of its end
    let _ = reader.send(last);
    if may_run && !runs_on {
        cancel(client, request.request_id).await;
    }
}

/// Tells every event once, whatever becomes of the streams that they come by, and gives the last.
async fn tell(client: &Client, request: &GenerateRequest, mut source: Source, reader: &Reader) -> Told<Error> {
    let (mut next_index, mut told, mut pauses) = (0, Vec::new(), PAUSES.into_iter());
    loop {
        let event = match source.recv().await.unwrap_or_else(|| Err(Status::unavailable("the stream ended before the generation did"))) {
            Ok(event) => event,
            Err(status) => {
                let goes_on = LOST.contains(&status.code()) && request.on_disconnect() != DisconnectPolicy::Cancel;
                let pause = pauses.next().filter(|_| goes_on).ok_or(status)?;
                sleep(Duration::from_millis(pause)).await;
                // Before the first chunk the server may not know the request; where it does, the id attaches to the generation.
                let resume = ResumeCommand { request_id: request.request_id.clone(), next_index };
                let command = if next_index == 0 { Command::Generate(request.clone()) } else { Command::Resume(resume) };
                source = client.session().send(&request.request_id, command);
                continue;
            }
        };
        pauses = PAUSES.into_iter();
        match &event.event {
            Some(Event::Chunk(chunk)) if chunk.index != next_index => Err(Status::data_loss(format!("chunk {next_index} is missing")))?,
            Some(Event::Chunk(_)) => next_index += 1,
            Some(Event::Completed(_)) => return Ok(event),
            Some(Event::Failed(error)) => return Err(error.clone().into()),
            Some(event) if told.contains(event) => continue, // what came after the last chunk comes again
            event => told.extend(event.clone()),
        }
        let _ = reader.send(Ok(event));
    }
}

/// Ends a generation at the server. Tried again where it fails: the request may still be on its way there.
async fn cancel(client: Client, request_id: String) {
    for pause in PAUSES {
        if client.request().cancel_request(CancelRequestRequest { request_id: request_id.clone() }).await.is_ok() {
            break;
        }
        sleep(Duration::from_millis(pause)).await;
    }
}
