/** Streams answers, runs many generations over one stream, resumes them after a lost connection, cancels them, and types errors. */
export { Client } from "./client.js";
export { HeadraceError } from "./errors.js";
export { type Generation, prompt, type Request, Session } from "./generation.js";
