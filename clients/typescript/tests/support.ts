/** What the steps of the scenario share: requests, what is read of a stream, and what must be seen. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";

import { create } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";

import { type Client, HeadraceError, prompt } from "../src/index.js";
import {
  ErrorCode,
  FinishReason,
  type GenerateRequest,
  GenerateRequestSchema,
  type GenerationEvent,
  type GenerationResult,
  type ProviderError,
  RequestState,
  type StateTransition,
  type StreamChunk,
} from "../src/v1.js";

export const ECHOED = "You said: one two three This answer comes from the fake provider, one word at a time.";
export const SLOW = Array.from({ length: 64 }, (_, token) => ` tok${token}`).join("");

export const requestTo = (provider: string): GenerateRequest =>
  create(GenerateRequestSchema, { ...prompt("one two three"), requestId: randomUUID(), provider, fallback: { enabled: false } });

/** The text of a result that is one text. */
export function textOf(result: GenerationResult | undefined): string {
  assert.equal(result?.content.length, 1);
  const part = result.content[0]?.part;
  assert.equal(part?.case, "text");
  return part.value;
}

export interface Summary {
  transitions: StateTransition[];
  chunks: StreamChunk[];
  text: string;
  last: GenerationEvent["event"] | undefined;
}

export async function collect(events: AsyncIterable<GenerationEvent>): Promise<Summary> {
  const seen: Summary = { transitions: [], chunks: [], text: "", last: undefined };
  for await (const { event } of events) {
    seen.last = event;
    if (event.case === "transition") seen.transitions.push(event.value);
    if (event.case === "chunk") {
      seen.chunks.push(event.value);
      if (event.value.delta.case === "text") seen.text += event.value.delta.value;
    }
  }
  return seen;
}

export const resultOf = ({ last }: Summary): GenerationResult | undefined => (last?.case === "completed" ? last.value : undefined);

export function checkSlow(seen: Summary): void {
  checkTransitions(seen.transitions);
  assert.deepEqual(
    seen.chunks.map(({ index }) => index),
    seen.chunks.map((_, place) => place),
  );
  assert.deepEqual(
    seen.chunks.map(({ finishReason }) => finishReason).filter(Boolean),
    [FinishReason.STOP],
  );
  assert.equal(seen.chunks.at(-1)?.finishReason, FinishReason.STOP);
  assert.equal(seen.text, SLOW);
  assert.equal(textOf(resultOf(seen)), SLOW);
  assert.equal(resultOf(seen)?.usage?.outputTokens, 64);
}

export function checkTransitions(seen: StateTransition[]): void {
  const states = [RequestState.IDLE, ...seen.map(({ toState }) => toState)].map((state) => RequestState[state]);
  assert.deepEqual(states, ["IDLE", "VALIDATING", "REQUESTING", "STREAMING", "COMPLETED"]);
  assert.deepEqual(
    seen.map(({ fromState }) => RequestState[fromState]),
    states.slice(0, -1),
  );
}

export const milliseconds = ({ time }: StateTransition): number => timestampMs(time!);

export async function checkCancelled(client: Client, requestId: string, failed: ProviderError | undefined): Promise<void> {
  assert.equal(failed?.code, ErrorCode.CANCELLED);
  const partial = textOf(failed.partial);
  assert.ok(SLOW.startsWith(partial) && partial.length < SLOW.length, partial);
  const { request } = await client.request.getRequest({ requestId });
  assert.equal(request?.state, RequestState.FAILED);
  assert.equal(request.errorCode, ErrorCode.CANCELLED);
}

/** What a promise is rejected with, which must be an error of Headrace. */
export async function failure(promise: Promise<unknown>): Promise<HeadraceError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof HeadraceError, `not an error of Headrace: ${error}`);
  return error;
}
