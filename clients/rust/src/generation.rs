use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_stream::{Stream, StreamExt};

use crate::v1::generation_event::Event;
use crate::v1::stream_chunk::Delta;
use crate::v1::stream_generate_request::Command;
use crate::v1::{CancelCommand, DisconnectPolicy, ErrorCode, GenerateRequest, GenerationEvent, ResumeCommand, StreamGenerateRequest};
use crate::{Error, session::Order};

/// One generation: a stream of its events as they come, `completed` last. One that fails ends with an error.
///
/// To drop it is to go away: the server cancels the generation, unless `on_disconnect` says that it runs on.
#[derive(Debug)]
pub struct Generation {
    /// As it was sent, with its id.
    pub request: GenerateRequest,
    pub(crate) events: UnboundedReceiver<Result<GenerationEvent, Error>>,
    pub(crate) orders: UnboundedSender<Order>,
    pub(crate) ended: bool,
}

impl Generation {
    /// The next event. None: there are no more.
    pub async fn next(&mut self) -> Option<Result<GenerationEvent, Error>> {
        StreamExt::next(self).await
    }

    /// Asks the server to end the generation. The last event tells how it ended.
    pub fn cancel(&self) {
        let _ = self.orders.send(Order::Cancel(self.request.request_id.clone()));
    }

    /// Its text alone.
    pub fn text(self) -> Text {
        Text(self)
    }
}

impl Stream for Generation {
    type Item = Result<GenerationEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = ready!(self.events.poll_recv(context));
        let item = item.unwrap_or_else(|| Err(Error::new(ErrorCode::Cancelled, "the runtime of the session has ended".into())));
        self.ended = !matches!(&item, Ok(event) if !matches!(event.event, Some(Event::Completed(_))));
        Poll::Ready(Some(item))
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.events.close();
        let _ = self.orders.send(Order::Leave(self.request.request_id.clone()));
    }
}

/// The pieces of a generation's text. An answer that starts again at another provider (MID_STREAM_FALLBACK_RESTART) is an error here.
#[derive(Debug)]
pub struct Text(Generation);

impl Text {
    /// The next piece. None: there are no more.
    pub async fn next(&mut self) -> Option<Result<String, Error>> {
        StreamExt::next(self).await
    }
}

impl Stream for Text {
    type Item = Result<String, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let item = match ready!(Pin::new(&mut self.0).poll_next(context)) {
                Some(Ok(event)) => event.event,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            match item {
                Some(Event::Chunk(chunk)) => {
                    if let Some(Delta::Text(text)) = chunk.delta {
                        return Poll::Ready(Some(Ok(text)));
                    }
                }
                Some(Event::Discontinuity(_)) => {
                    self.0.ended = true;
                    let message = "the answer starts again, which its text alone cannot show: read the events";
                    return Poll::Ready(Some(Err(Error::new(ErrorCode::UnknownError, message.into()))));
                }
                _ => {}
            }
        }
    }
}

/// What the session knows of a generation.
#[derive(Debug)]
pub(crate) struct Running {
    pub request: GenerateRequest,
    pub events: UnboundedSender<Result<GenerationEvent, Error>>,
    pub is_cancelled: bool,
    next_index: i32,    // how many chunks came
    since_chunk: usize, // how many transitions came after the last of them
    seen: usize,        // how many of those will come again
}

/// The generations of a session that have not ended, by id.
pub(crate) type AllRunning = HashMap<String, Running>;

impl Running {
    pub fn new(request: GenerateRequest, events: UnboundedSender<Result<GenerationEvent, Error>>) -> Self {
        Self { request, events, is_cancelled: false, next_index: 0, since_chunk: 0, seen: 0 }
    }

    /// Whether it goes on at the server when the connection is lost.
    pub fn outlives_connection(&self) -> bool {
        matches!(self.request.on_disconnect(), DisconnectPolicy::Drain | DisconnectPolicy::Keep)
    }

    /// What starts the generation on a stream, or takes it up where the last stream left it.
    pub fn commands(&mut self) -> impl Iterator<Item = StreamGenerateRequest> + use<> {
        self.seen = std::mem::take(&mut self.since_chunk);
        let request_id = self.request.request_id.clone();
        let first = if self.next_index == 0 {
            Command::Generate(self.request.clone()) // the server may not know it yet; if it does, the id attaches to it
        } else {
            Command::Resume(ResumeCommand { request_id: request_id.clone(), next_index: self.next_index })
        };
        let cancel = self.is_cancelled.then(|| cancel(request_id));
        std::iter::once(StreamGenerateRequest { command: Some(first) }).chain(cancel)
    }

    /// Keeps an event for the reader, and tells whether it is the last one.
    pub fn take(&mut self, event: GenerationEvent) -> bool {
        match &event.event {
            Some(Event::Transition(_)) => {
                self.since_chunk += 1;
                if self.since_chunk <= self.seen {
                    return false;
                }
            }
            Some(Event::Chunk(chunk)) if chunk.index != self.next_index => {
                let message = format!("chunk {} came where {} was due", chunk.index, self.next_index);
                return self.end(Error::new(ErrorCode::UnknownError, message));
            }
            Some(Event::Chunk(_)) => {
                self.next_index += 1;
                (self.since_chunk, self.seen) = (0, 0);
            }
            Some(Event::Failed(error)) => return self.end(error.clone().into()),
            _ => {}
        }
        let is_last = matches!(event.event, Some(Event::Completed(_)));
        let _ = self.events.send(Ok(event));
        is_last
    }

    pub fn end(&self, error: Error) -> bool {
        let _ = self.events.send(Err(error));
        true
    }
}

pub(crate) fn cancel(request_id: String) -> StreamGenerateRequest {
    StreamGenerateRequest { command: Some(Command::Cancel(CancelCommand { request_id })) }
}
