/** A client of Headrace: it streams answers, runs many generations over one stream, resumes them after a lost connection, and types errors. */
export { Client } from "./client.js";
export { HeadraceError } from "./errors.js";
export { Generation, prompt, type Request, Session, type SessionOptions } from "./session.js";
export { text } from "./text.js";
