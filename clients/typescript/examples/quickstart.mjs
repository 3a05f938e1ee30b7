// Streams one answer from a Headrace that listens on localhost:50051, or where the first argument says.
import { Client, HeadraceError } from "headrace";

const client = new Client(`http://${process.argv[2] ?? "localhost:50051"}`);
try {
  for await (const text of client.text("What does a river do?")) process.stdout.write(text);
  console.log();
} catch (error) {
  if (!(error instanceof HeadraceError)) throw error;
  console.error(error.message, error.retryAfterMs);
  process.exitCode = 1;
} finally {
  await client.close();
}
