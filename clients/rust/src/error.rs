use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};
use tonic_types::{StatusExt, pb};

use crate::v1::{ErrorCode, FieldViolation, ProviderError};

/// What tonic, or a proxy, says of a stream that broke.
pub(crate) const LOST: [Code; 4] = [Code::Unavailable, Code::Cancelled, Code::Internal, Code::Unknown];

/// Why an RPC or a generation failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{code:?}: {message}")]
pub struct Error {
    /// What went wrong.
    pub code: ErrorCode,
    /// The same for people.
    pub message: String,
    /// How long to wait before a new try, where somebody named a delay.
    pub retry_after: Option<Duration>,
    /// Which fields of the request are wrong.
    pub field_violations: Vec<FieldViolation>,
    /// All that is known, the `subreason` too.
    pub detail: Option<Box<ProviderError>>,
    /// The status of the RPC; not set where an event told that the generation failed.
    pub status: Option<Box<Status>>,
}

impl From<ProviderError> for Error {
    fn from(detail: ProviderError) -> Self {
        Self {
            code: detail.code(),
            message: detail.message.clone(),
            retry_after: detail.rate_limit.and_then(|limit| limit.retry_after?.try_into().ok()),
            field_violations: detail.field_violations.clone(),
            detail: Some(Box::new(detail)),
            status: None,
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let details = pb::Status::decode(status.details()).unwrap_or_default().details;
        let code = match status.code() {
            Code::DeadlineExceeded => ErrorCode::Timeout,
            code if LOST.contains(&code) => ErrorCode::NetworkError,
            _ => ErrorCode::UnknownError,
        };
        let connection = ProviderError { code: code.into(), ..Default::default() };
        let mut detail = details.iter().find_map(|detail| detail.to_msg().ok()).unwrap_or(connection);
        let violations = status.get_details_bad_request().map(|request| request.field_violations).unwrap_or_default();
        detail.field_violations = violations.into_iter().map(|v| FieldViolation { field: v.field, description: v.description }).collect();
        Self { message: status.message().into(), status: Some(Box::new(status)), ..detail.into() }
    }
}
