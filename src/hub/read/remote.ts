/** Reads ranges of a file of a commit: over HTTP, or by Xet if the Hub does not offer HTTP. */
import { IsologitError } from "../../core/errors.ts";
import { httpRemote, type Remote, toTransientError } from "../../io/http.ts";
import { interruptedError } from "../../io/retry.ts";
import { type Connection, requestContext } from "../connection.ts";
import { refusalError } from "../faults.ts";
import type { HubFile } from "../files.ts";

export function remoteFile(connection: Connection, repo: string, commit: string, file: HubFile): Remote {
  const { settings, dispatcher } = connection;
  if (file.xet !== undefined && file.size > settings.xetAboveBytes) {
    return xetRemote(connection, repo, commit, file);
  }
  const { endpoint, token } = settings;
  const path = file.path.split("/").map(encodeURIComponent).join("/");
  const at = { file: file.path };
  const request = requestContext(settings, { repo, revision: commit, at });
  return httpRemote({
    url: `${endpoint}/${repo}/resolve/${commit}/${path}`,
    size: file.size,
    etag: file.etag,
    at,
    dispatcher,
    headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
    refusal: (status, headers) => refusalError(request, status, headers),
  });
}

/** Reads by Xet with the library, which finds, downloads and unpacks the chunks of the file. */
function xetRemote(connection: Connection, repo: string, commit: string, file: HubFile): Remote {
  const at = { file: file.path };
  const subject = { repo, revision: commit, at };
  return {
    at,
    size: file.size,
    async *stream(start, end, signal) {
      if (start >= end) return;
      const fetch = connection.fetchFor(subject, signal);
      const where = { ...connection.access, repo, path: file.path, revision: commit, fetch };
      const { downloadFile, fileDownloadInfo } = await import("@huggingface/hub");
      try {
        const downloadInfo = await fileDownloadInfo(where);
        if (downloadInfo?.xet === undefined || downloadInfo.size !== file.size) {
          const message = "the Hub no longer offers this file by Xet, at this size";
          throw new IsologitError("FILE_CHANGED", message, at, { next: "run the same command again" });
        }
        const blob = await downloadFile({ ...where, downloadInfo });
        // Streams of Node are async iterables; the type of the platform lacks that.
        yield* blob!.slice(start, end).stream() as unknown as AsyncIterable<Uint8Array>;
      } catch (error) {
        if (signal?.aborted) throw interruptedError(signal);
        throw toTransientError(error, at);
      }
    },
  };
}
