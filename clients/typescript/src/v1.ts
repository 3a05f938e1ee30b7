/** The messages, enums and services of the contract. */
export * from "./gen/headrace/v1/analytics_service_pb.js";
export * from "./gen/headrace/v1/error_pb.js";
export * from "./gen/headrace/v1/event_pb.js";
export * from "./gen/headrace/v1/generation_service_pb.js";
export * from "./gen/headrace/v1/lifecycle_pb.js";
export * from "./gen/headrace/v1/message_pb.js";
export * from "./gen/headrace/v1/provider_service_pb.js";
export * from "./gen/headrace/v1/request_pb.js";
export * from "./gen/headrace/v1/request_service_pb.js";
export * from "./gen/headrace/v1/result_pb.js";
export * from "./gen/headrace/v1/usage_pb.js";
