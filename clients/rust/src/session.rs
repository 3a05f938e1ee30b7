use std::future::pending;
use std::time::Duration;

use futures_util::TryFutureExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Status};
use uuid::Uuid;

use crate::generation::{AllRunning, Running, cancel};
use crate::v1::generation_service_client::GenerationServiceClient;
use crate::v1::{ErrorCode, GenerateRequest, GenerationEvent, StreamGenerateRequest, StreamGenerateResponse};
use crate::{Error, Generation, Transport};

/// A stream that is lost is opened again so many times in a row, after waits that begin with RECONNECT_DELAY and double.
const RECONNECTS: u32 = 8;
const RECONNECT_DELAY: Duration = Duration::from_millis(50);

/// Runs generations over one stream. When the stream is lost, another is opened, and those generations go on that outlive a connection, by
/// DISCONNECT_POLICY_KEEP or _DRAIN; the others end with an error. Generations may outlive the session that they were started by.
#[derive(Clone, Debug)]
pub struct Session {
    orders: UnboundedSender<Order>,
}

/// What a session or a generation asks of the task that has the stream.
#[derive(Debug)]
pub(crate) enum Order {
    Start(Box<Running>),
    Cancel(String),
    /// Its reader has gone.
    Leave(String),
}

impl Session {
    pub(crate) fn new(stub: GenerationServiceClient<Transport>, timeout: Option<Duration>) -> Self {
        let (orders, received) = unbounded_channel();
        let driver = Driver {
            stub,
            orders: received,
            running: AllRunning::new(),
            tries: 0,
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            was_left: false,
        };
        tokio::spawn(driver.run());
        Self { orders }
    }

    /// Begins a generation. One without a request id gets one; with the id of one that runs in this session it fails.
    pub fn start(&self, request: impl Into<GenerateRequest>) -> Generation {
        let mut request = request.into();
        if request.request_id.is_empty() {
            request.request_id = Uuid::new_v4().to_string();
        }
        let (told, events) = unbounded_channel();
        let _ = self.orders.send(Order::Start(Box::new(Running::new(request.clone(), told))));
        Generation { request, events, orders: self.orders.clone(), ended: false }
    }
}

/// The task that has the stream. It ends with the last handle of the session.
struct Driver {
    stub: GenerationServiceClient<Transport>,
    orders: UnboundedReceiver<Order>,
    running: AllRunning,
    tries: u32,
    deadline: Option<Instant>,
    /// Whether a reader has gone before its generation ended.
    was_left: bool,
}

impl Driver {
    async fn run(mut self) {
        while let Some(error) = self.one_stream().await {
            let again = error.is_lost() && self.tries < RECONNECTS && self.deadline.is_none_or(|deadline| Instant::now() < deadline);
            self.running.retain(|_, generation| {
                let goes_on = again && generation.outlives_connection();
                goes_on || !generation.end(error.clone())
            });
            self.tries += 1;
        }
    }

    /// Open a stream, as soon as there is something to run, and hand out what it brings. What it ended with, or None when nobody is there
    /// any more.
    async fn one_stream(&mut self) -> Option<Error> {
        while self.running.is_empty() {
            self.tries = 0;
            let order = self.orders.recv().await?;
            self.obey(order, None);
        }
        let (commands, outgoing) = unbounded_channel();
        self.running.values_mut().flat_map(Running::commands).for_each(|command| _ = commands.send(command));
        let mut commands = Some(commands);
        let mut incoming = std::pin::pin!(self.open(outgoing));
        loop {
            tokio::select! {
                order = self.orders.recv(), if commands.is_some() => match order {
                    Some(order) => self.obey(order, commands.as_ref()),
                    None if self.was_left => return None,
                    None => commands = None, // the server ends the stream in good order
                },
                message = incoming.next() => match message {
                    Some(Ok(message)) => {
                        self.tries = 0;
                        message.events.into_iter().for_each(|event| self.hand_out(event));
                    }
                    Some(Err(status)) => return Some(status.into()),
                    None => return Some(Status::unavailable("the stream ended before the generation did").into()),
                },
                () = until(self.deadline) => return Some(Status::deadline_exceeded("the session's time is over").into()),
            }
        }
    }

    fn open(
        &self,
        outgoing: UnboundedReceiver<StreamGenerateRequest>,
    ) -> impl Stream<Item = Result<StreamGenerateResponse, Status>> + use<> {
        let (mut stub, tries, deadline) = (self.stub.clone(), self.tries, self.deadline);
        async move {
            if tries > 0 {
                sleep(RECONNECT_DELAY * 2u32.pow(tries - 1)).await;
            }
            let mut request = Request::new(UnboundedReceiverStream::new(outgoing));
            if let Some(deadline) = deadline {
                request.set_timeout(deadline.saturating_duration_since(Instant::now()));
            }
            Ok(stub.stream_generate(request).await?.into_inner())
        }
        .try_flatten_stream()
    }

    fn obey(&mut self, order: Order, commands: Option<&UnboundedSender<StreamGenerateRequest>>) {
        let send = |command| {
            if let Some(commands) = commands {
                let _ = commands.send(command);
            }
        };
        match order {
            Order::Start(generation) if self.running.contains_key(&generation.request.request_id) => {
                generation.end(Error::new(ErrorCode::InvalidRequest, "this id runs in the session already".into()));
            }
            Order::Start(mut generation) => {
                if commands.is_some() {
                    generation.commands().for_each(send);
                }
                self.running.insert(generation.request.request_id.clone(), *generation);
            }
            Order::Cancel(id) => {
                if let Some(generation) = self.running.get_mut(&id) {
                    generation.is_cancelled = true; // where no stream is open, the next one begins with it
                    send(cancel(id));
                }
            }
            Order::Leave(id) => {
                if let Some(generation) = self.running.get(&id).filter(|generation| generation.events.is_closed()) {
                    self.was_left = true;
                    if !generation.outlives_connection() {
                        send(cancel(id.clone()));
                    }
                    self.running.remove(&id);
                }
            }
        }
    }

    fn hand_out(&mut self, event: GenerationEvent) {
        let id = event.request_id.clone();
        if self.running.get_mut(&id).is_some_and(|generation| generation.take(event)) {
            self.running.remove(&id);
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
