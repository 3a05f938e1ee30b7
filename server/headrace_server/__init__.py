"""Headrace: a gRPC service that carries token streams from model providers to other services."""
