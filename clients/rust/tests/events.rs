//! The helper against a server that plays scripted streams.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headrace::v1::generation_event::Event;
use headrace::v1::generation_service_server::{GenerationService, GenerationServiceServer};
use headrace::v1::request_service_server::{RequestService, RequestServiceServer};
use headrace::v1::stream_chunk::Delta;
use headrace::v1::stream_generate_request::Command;
use headrace::v1::{
    CancelRequestRequest, CancelRequestResponse, DisconnectPolicy, Discontinuity, ErrorCode, GenerateRequest, GenerationEvent,
    GenerationResult, ProviderError, RequestState, StateTransition, StreamChunk, StreamGenerateRequest, StreamGenerateResponse,
};
use headrace::{Client, Error, Events};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::BoxStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

/// What the server does on one stream: it tells events, of the first generation that was asked for where they have no id, and ends.
type Script = (Vec<GenerationEvent>, End);

enum End {
    Ok,
    Status(Code),
    /// Says nothing more, until the client goes away.
    Stays,
}

const LOST: End = End::Status(Code::Unavailable);

struct Scripted {
    scripts: Mutex<VecDeque<Script>>,
    seen: UnboundedSender<Seen>,
}

/// What the server sees of its client.
#[derive(Debug, PartialEq)]
enum Seen {
    /// Those of one stream, by id.
    Commands(Vec<Command>),
    /// CancelRequest, for this id.
    Cancel(String),
}

#[tonic::async_trait]
impl GenerationService for Scripted {
    async fn stream_generate(
        &self,
        request: Request<Streaming<StreamGenerateRequest>>,
    ) -> Result<Response<BoxStream<StreamGenerateResponse>>, Status> {
        let requests: Vec<_> = request.into_inner().collect::<Result<_, _>>().await?;
        let mut commands: Vec<_> = requests.into_iter().map(|request| request.command.expect("a command")).collect();
        commands.sort_by_key(id_of);
        let first = id_of(&commands[0]);
        let _ = self.seen.send(Seen::Commands(commands));
        let (mut events, end) = self.scripts.lock().unwrap().pop_front().expect("no more streams");
        events.iter_mut().filter(|event| event.request_id.is_empty()).for_each(|event| event.request_id = first.clone());
        let messages = tokio_stream::iter(events.into_iter().map(|event| Ok(StreamGenerateResponse { events: vec![event] })));
        Ok(Response::new(match end {
            End::Ok => Box::pin(messages),
            End::Status(code) => Box::pin(messages.chain(tokio_stream::once(Err(Status::new(code, "gone"))))),
            End::Stays => Box::pin(messages.chain(tokio_stream::pending())),
        }))
    }
}

/// Answers the first CancelRequest that it does not know the request.
struct Cancels {
    seen: UnboundedSender<Seen>,
    is_first: AtomicBool,
}

#[tonic::async_trait]
impl RequestService for Cancels {
    async fn cancel_request(&self, request: Request<CancelRequestRequest>) -> Result<Response<CancelRequestResponse>, Status> {
        let _ = self.seen.send(Seen::Cancel(request.into_inner().request_id));
        if self.is_first.swap(false, Ordering::Relaxed) {
            Err(Status::not_found("not yet"))
        } else {
            Ok(Response::new(CancelRequestResponse::default()))
        }
    }
}

fn id_of(command: &Command) -> String {
    match command {
        Command::Generate(request) => request.request_id.clone(),
        Command::Resume(resume) => resume.request_id.clone(),
        Command::Cancel(cancel) => cancel.request_id.clone(),
    }
}

/// Starts the server; gives a client of it, and what it sees.
async fn serve(scripts: impl Into<VecDeque<Script>>) -> (Client, Sight) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let (seen, sight) = unbounded_channel();
    let cancels = RequestServiceServer::new(Cancels { seen: seen.clone(), is_first: true.into() });
    let generations = GenerationServiceServer::new(Scripted { scripts: Mutex::new(scripts.into()), seen });
    let server = Server::builder().add_service(generations).add_service(cancels);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (Client::connect(uri).await.unwrap(), Sight(sight))
}

struct Sight(UnboundedReceiver<Seen>);

impl Sight {
    async fn next(&mut self) -> Seen {
        tokio::time::timeout(Duration::from_secs(10), self.0.recv()).await.expect("nothing comes").expect("the server")
    }

    async fn commands(&mut self) -> Vec<Command> {
        match self.next().await {
            Seen::Commands(commands) => commands,
            other => panic!("no commands: {other:?}"),
        }
    }

    /// The command of a stream that has one.
    async fn command(&mut self) -> Command {
        let [command] = self.commands().await.try_into().expect("one command");
        command
    }
}

fn of(request_id: &str, event: Event) -> GenerationEvent {
    GenerationEvent { request_id: request_id.into(), event: Some(event) }
}

fn transition(state: RequestState) -> GenerationEvent {
    of("", Event::Transition(StateTransition { to_state: state.into(), ..Default::default() }))
}

fn chunk_of(request_id: &str, index: i32, text: &str) -> GenerationEvent {
    of(request_id, Event::Chunk(StreamChunk { index, delta: Some(Delta::Text(text.into())), ..Default::default() }))
}

fn chunk(index: i32, text: &str) -> GenerationEvent {
    chunk_of("", index, text)
}

fn completed() -> GenerationEvent {
    of("", Event::Completed(GenerationResult::default()))
}

fn failed(request_id: &str, code: ErrorCode) -> GenerationEvent {
    of(request_id, Event::Failed(ProviderError { code: code.into(), message: "no".into(), ..Default::default() }))
}

fn hello(request_id: &str, policy: DisconnectPolicy) -> GenerateRequest {
    GenerateRequest { request_id: request_id.into(), on_disconnect: policy.into(), ..GenerateRequest::from("Hello") }
}

fn resume(request_id: &str, next_index: i32) -> Command {
    Command::Resume(headrace::v1::ResumeCommand { request_id: request_id.into(), next_index })
}

/// What was told, in words, and the last error.
async fn told(mut events: Events) -> (String, Option<Error>) {
    let (mut words, mut last_error) = (Vec::new(), None);
    while let Some(event) = events.next().await {
        match event.map(|event| event.event) {
            Ok(Some(Event::Transition(transition))) => words.push(transition.to_state().as_str_name().replace("REQUEST_STATE_", "")),
            Ok(Some(Event::Chunk(StreamChunk { delta: Some(Delta::Text(text)), .. }))) => words.push(text),
            Ok(Some(Event::Completed(_))) => words.push("completed".into()),
            Ok(other) => words.push(format!("{other:?}")),
            Err(error) => {
                words.push(error.to_string());
                last_error = Some(error);
            }
        }
    }
    (words.join(" "), last_error)
}

#[tokio::test]
async fn nothing_is_told_twice_when_streams_are_lost() {
    let (validating, streaming) = (transition(RequestState::Validating), transition(RequestState::Streaming));
    let (client, mut sight) = serve([
        (vec![validating.clone()], LOST),
        (vec![validating, streaming.clone(), chunk(0, "a"), chunk(1, "b")], LOST),
        (vec![streaming, chunk(2, "c"), completed()], End::Ok),
    ])
    .await;
    let (words, error) = told(client.events(["Hello"])).await;
    assert_eq!(words, "VALIDATING STREAMING a b c completed");
    assert!(error.is_none());
    let (first, second, third) = (sight.command().await, sight.command().await, sight.command().await);
    let id = id_of(&first);
    assert!(!id.is_empty());
    assert_eq!(first, second, "before the first chunk the same request is sent again");
    assert_eq!(third, resume(&id, 2));
}

#[tokio::test]
async fn a_request_is_sent_as_keep_when_nothing_is_said() {
    let end = || (vec![completed()], End::Ok);
    let (client, mut sight) = serve([end(), end()]).await;
    told(client.events(["Hello"])).await;
    assert!(matches!(sight.command().await, Command::Generate(request) if request.on_disconnect() == DisconnectPolicy::Keep));
    told(client.events([hello("", DisconnectPolicy::Drain)])).await;
    assert!(matches!(sight.command().await, Command::Generate(request) if request.on_disconnect() == DisconnectPolicy::Drain));
}

#[tokio::test]
async fn the_server_is_asked_how_it_ended_when_a_generation_ends_with_its_stream() {
    let (client, mut sight) = serve([(vec![chunk(0, "a")], LOST), (vec![failed("", ErrorCode::Cancelled)], End::Ok)]).await;
    let (words, error) = told(client.events([hello("1", DisconnectPolicy::Cancel)])).await;
    assert_eq!((words.as_str(), error.expect("an error").code), ("a Cancelled: no", ErrorCode::Cancelled));
    sight.command().await;
    assert_eq!(sight.command().await, resume("1", 1));
}

#[tokio::test]
async fn a_stream_without_an_end_is_lost_when_its_status_is_ok() {
    let (client, mut sight) = serve([(vec![chunk(0, "a")], End::Ok), (vec![chunk(1, "b"), completed()], End::Ok)]).await;
    assert_eq!(told(client.events([hello("1", DisconnectPolicy::Keep)])).await.0, "a b completed");
    sight.command().await;
    assert_eq!(sight.command().await, resume("1", 1));
}

#[tokio::test]
async fn all_go_on_over_one_stream_when_theirs_is_lost() {
    let (client, mut sight) = serve([
        (vec![chunk_of("1", 0, "a"), chunk_of("2", 0, "A"), chunk_of("1", 1, "b")], LOST),
        (vec![chunk_of("2", 1, "B"), failed("2", ErrorCode::ServerError)], LOST),
        (vec![chunk_of("1", 2, "c"), completed()], End::Ok),
    ])
    .await;
    let (words, error) = told(client.events(["1", "2"].map(|id| hello(id, DisconnectPolicy::Keep)))).await;
    assert_eq!(words, "a A b B ServerError: no c completed", "one fails, and the other goes on");
    assert_eq!(error.expect("an error").detail.request_id, "2");
    assert_eq!(sight.commands().await.len(), 2);
    assert_eq!(sight.commands().await, [resume("1", 2), resume("2", 1)]);
    assert_eq!(sight.command().await, resume("1", 2), "the other one has ended");
}

#[tokio::test]
async fn an_id_is_sent_in_the_form_in_which_events_tell_it() {
    let id = headrace::new_id();
    let ended = of(&id, Event::Completed(GenerationResult::default()));
    let (client, mut sight) = serve([(vec![chunk_of(&id, 0, "a"), ended], End::Ok)]).await;
    let (words, error) = told(client.events([hello(&id.to_uppercase(), DisconnectPolicy::Keep)])).await;
    assert_eq!(words, "a completed");
    assert!(error.is_none());
    assert_eq!(id_of(&sight.command().await), id);
}

#[tokio::test]
async fn nothing_is_sent_when_two_requests_have_the_same_id() {
    let (client, mut sight) = serve([(vec![completed()], End::Ok)]).await;
    let id = headrace::new_id();
    let twice = [id.clone(), id.to_uppercase()].map(|id| hello(&id, DisconnectPolicy::Keep));
    let (words, error) = told(client.events(twice)).await;
    assert_eq!(words, "InvalidRequest: two requests have the same id");
    assert_eq!(error.expect("an error").code, ErrorCode::InvalidRequest);
    told(client.events(["Hello"])).await;
    assert_ne!(id_of(&sight.command().await), id, "the first that is sent");
}

#[tokio::test]
async fn everything_is_told_in_order_when_it_is_read_late() {
    let chunks: Vec<_> = (0..500).map(|index| chunk(index, &index.to_string())).chain([completed()]).collect();
    let (client, mut sight) = serve([(chunks, End::Ok)]).await;
    let events = client.events(["Hello"]);
    sight.command().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let expected: String = (0..500).map(|index| format!("{index} ")).collect();
    assert_eq!(told(events).await.0, expected + "completed");
}

#[tokio::test]
async fn a_status_that_is_no_loss_is_an_error_at_once() {
    let (client, mut sight) = serve([(vec![chunk(0, "a")], End::Status(Code::PermissionDenied))]).await;
    let (words, error) = told(client.events(["Hello"])).await;
    assert_eq!(words, "a UnknownError: gone");
    assert_eq!(error.and_then(|error| error.status).expect("a status").code(), Code::PermissionDenied);
    let id = id_of(&sight.command().await);
    assert_eq!(sight.next().await, Seen::Cancel(id), "it may run");
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_an_error_when_nobody_listens_any_more() {
    let client = Client::new(Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
    let begin = tokio::time::Instant::now();
    let error = told(client.events(["Hello"])).await.1.expect("an error");
    assert_eq!((error.code, error.status.expect("a status").code()), (ErrorCode::NetworkError, Code::Unavailable));
    assert!(begin.elapsed() > Duration::from_secs(12), "the pauses before other tries");
}

#[tokio::test]
async fn a_generation_is_cancelled_when_it_is_dropped() {
    let (client, mut sight) = serve([(vec![chunk(0, "a")], End::Stays)]).await;
    let mut text = client.text("Hello");
    assert_eq!(text.next().await.expect("a piece").expect("a piece"), "a");
    let id = id_of(&sight.command().await);
    drop(text);
    assert_eq!(sight.next().await, Seen::Cancel(id.clone()));
    assert_eq!(sight.next().await, Seen::Cancel(id), "it is asked again, as the server did not know the request yet");
}

#[tokio::test]
async fn a_generation_runs_on_when_it_is_dropped_and_its_caller_has_said_so() {
    let (client, mut sight) = serve([(vec![chunk(0, "a")], End::Stays), (vec![], End::Stays)]).await;
    let policies = [("1", DisconnectPolicy::Keep), ("2", DisconnectPolicy::Drain), ("3", DisconnectPolicy::Cancel)];
    let mut events = client.events(policies.map(|(id, policy)| hello(id, policy)));
    assert_eq!(events.next().await.expect("an event").expect("an event").request_id, "1");
    sight.commands().await;
    drop(events);
    assert_eq!([sight.next().await, sight.next().await], ["3", "3"].map(|id| Seen::Cancel(id.into())), "and again: it was not known");
    let other = client.events([hello("4", DisconnectPolicy::Unspecified)]);
    sight.command().await;
    drop(other);
    assert_eq!(sight.next().await, Seen::Cancel("4".into()), "the others are not cancelled");
}

#[tokio::test]
async fn nothing_is_cancelled_when_it_has_ended() {
    let (client, mut sight) = serve([(vec![failed("", ErrorCode::ServerError)], LOST), (vec![], End::Stays)]).await;
    let (words, error) = told(client.events(["Hello"])).await;
    assert_eq!(words, "ServerError: no", "what its stream says after it is nothing new");
    assert!(error.expect("an error").status.is_none());
    sight.command().await;
    let id = "2";
    drop(client.events([hello(id, DisconnectPolicy::Unspecified)]));
    let mut seen = sight.next().await;
    if let Seen::Commands(_) = seen {
        seen = sight.next().await; // it was dropped after it had been sent
    }
    assert_eq!(seen, Seen::Cancel(id.into()), "the second one alone");
}

#[tokio::test]
async fn connecting_is_an_error_when_nobody_listens_or_the_address_is_none() {
    assert_eq!(Client::connect("http://127.0.0.1:1").await.expect_err("nobody").to_string(), "transport error");
    assert_eq!(Client::connect("::").await.expect_err("no address").to_string(), "invalid URI");
}

#[tokio::test]
async fn a_missing_chunk_is_an_error() {
    let (client, _) = serve([(vec![chunk(0, "a"), chunk(2, "c"), completed()], End::Ok)]).await;
    let (words, error) = told(client.events(["Hello"])).await;
    assert_eq!(words, "a UnknownError: a chunk is missing");
    assert_eq!(error.and_then(|error| error.status).expect("a status").code(), Code::DataLoss);
}

#[tokio::test]
async fn text_is_an_error_when_the_answer_starts_again() {
    let again = of("", Event::Discontinuity(Discontinuity::default()));
    let (client, _) = serve([(vec![chunk(0, "a"), again, chunk(1, "A"), completed()], End::Ok)]).await;
    let mut text = client.text("Hello");
    assert_eq!(text.next().await.expect("a piece").expect("a piece"), "a");
    assert!(text.next().await.expect("an error").is_err());
}

#[tokio::test]
async fn rpcs_carry_the_metadata_of_the_client() {
    let token = Arc::new(Mutex::new(None));
    let kept = token.clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let service = Scripted { scripts: Mutex::default(), seen: unbounded_channel().0 };
    let service = GenerationServiceServer::with_interceptor(service, move |request: Request<()>| {
        *kept.lock().unwrap() = request.metadata().get("authorization").cloned();
        Ok(request)
    });
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    let mut client = Client::connect(uri).await.unwrap();
    client.metadata.insert("authorization", "Bearer secret".parse().unwrap());
    let status = client.generation().generate(GenerateRequest::from("Hello")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(token.lock().unwrap().as_ref().unwrap(), "Bearer secret");
}
