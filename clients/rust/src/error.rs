use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};
use tonic_types::{StatusExt, pb};

use crate::v1::{ErrorCode, FieldViolation, ProviderError};

/// What tonic, or a proxy, says of a stream that broke.
pub(crate) const LOST: [Code; 4] = [Code::Unavailable, Code::Cancelled, Code::Internal, Code::Unknown];

/// Why an RPC or a generation failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{code:?}: {}", detail.message)]
pub struct Error {
    /// What went wrong.
    pub code: ErrorCode,
    /// How long to wait before a new try, where somebody named a delay.
    pub retry_after: Option<Duration>,
    /// All that is known: the message, the `field_violations`, the `subreason`, and more.
    pub detail: Box<ProviderError>,
    /// The status of the RPC; not set where an event told that the generation failed.
    pub status: Option<Box<Status>>,
}

impl From<ProviderError> for Error {
    fn from(detail: ProviderError) -> Self {
        let retry_after = detail.rate_limit.and_then(|limit| limit.retry_after?.try_into().ok());
        Self { code: detail.code(), retry_after, detail: Box::new(detail), status: None }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let code = match status.code() {
            Code::DeadlineExceeded => ErrorCode::Timeout,
            code if LOST.contains(&code) => ErrorCode::NetworkError,
            _ => ErrorCode::UnknownError,
        };
        let details = pb::Status::decode(status.details()).unwrap_or_default().details;
        let told = details.iter().find_map(|detail| detail.to_msg().ok());
        let mut detail = told.unwrap_or(ProviderError { code: code.into(), ..Default::default() });
        // As a detail it comes without its violations, and its message may be cut.
        detail.message = status.message().into();
        let violations = status.get_details_bad_request().map(|request| request.field_violations).unwrap_or_default();
        detail.field_violations = violations.into_iter().map(|v| FieldViolation { field: v.field, description: v.description }).collect();
        Self { status: Some(Box::new(status)), ..detail.into() }
    }
}
