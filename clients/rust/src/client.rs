use tonic::service::{Interceptor, interceptor::InterceptedService};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, metadata::MetadataMap};

use crate::v1::generation_service_client::GenerationServiceClient;
use crate::v1::request_service_client::RequestServiceClient;
use crate::v1::{ChatMessage, ContentPart, GenerateRequest, MessageRole, content_part::Part};

/// A connection. Clones share it. It is the interceptor of its stubs: `AnalyticsServiceClient::with_interceptor(client.channel.clone(),
/// client.clone())`, and so on, makes those of the other services.
#[derive(Clone, Debug)]
pub struct Client {
    /// What the stubs send over.
    pub channel: Channel,
    /// What every RPC carries, such as `authorization`.
    pub metadata: MetadataMap,
}

impl Client {
    /// Connects to `http://HOST:PORT`, or to `https://HOST:PORT` where one of tonic's `tls-` features is on.
    pub async fn connect(uri: impl Into<String>) -> Result<Self, tonic::transport::Error> {
        Ok(Self::new(Endpoint::from_shared(uri.into())?.connect().await?))
    }

    /// A client on a channel of tonic's, which connects again by itself.
    pub fn new(channel: Channel) -> Self {
        Self { channel, metadata: MetadataMap::new() }
    }

    /// The stub of `GenerationService`. The statuses of all stubs convert to [`Error`](crate::Error), by `?` too.
    pub fn generation(&self) -> GenerationServiceClient<InterceptedService<Channel, Self>> {
        GenerationServiceClient::with_interceptor(self.channel.clone(), self.clone())
    }

    /// The stub of `RequestService`.
    pub fn request(&self) -> RequestServiceClient<InterceptedService<Channel, Self>> {
        RequestServiceClient::with_interceptor(self.channel.clone(), self.clone())
    }
}

impl Interceptor for Client {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().as_mut().extend(self.metadata.clone().into_headers());
        Ok(request)
    }
}

/// A request of one message of the user.
impl From<&str> for GenerateRequest {
    fn from(prompt: &str) -> Self {
        let content = vec![ContentPart { part: Some(Part::Text(prompt.into())) }];
        Self { messages: vec![ChatMessage { role: MessageRole::User.into(), content }], ..Default::default() }
    }
}

/// A new request id, for one that has to be known before the first event tells it.
pub fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
