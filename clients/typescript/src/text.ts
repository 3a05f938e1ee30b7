import type { GenerationEvent } from "./gen/headrace/v1/event_pb.js";

/** Reduces events to the pieces of text. An answer that starts again at another provider (MidStreamFallback.RESTART) is an error here. */
export async function* text(events: AsyncIterable<GenerationEvent>): AsyncGenerator<string, void> {
  for await (const { event } of events) {
    if (event.case === "discontinuity") throw new Error("the answer starts again, which its text alone cannot show: read the events");
    if (event.case === "chunk" && event.value.delta.case === "text") yield event.value.delta.value;
  }
}
