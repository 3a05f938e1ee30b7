/**
 * A client of Headrace. It streams answers, runs many generations over one stream, resumes them after a lost connection, and gives every
 * error a type. All else is in the generated stubs and messages, {@code dev.headrace.v1}.
 */
package dev.headrace;
