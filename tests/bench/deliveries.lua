-- wrk's part of `./dev bench webhook`: recorded deliveries, signed beforehand, each under a GUID of its own.
local bodies = dofile(os.getenv("DELIVERIES"))
local run, threads, sent = os.getenv("RUN"), 0, 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function request()
  sent = sent + 1
  local one = bodies[sent % #bodies + 1]
  return wrk.format("POST", "/github", {
    ["Accept"] = "*/*",
    ["User-Agent"] = "GitHub-Hookshot/bench",
    ["Content-Type"] = "application/json",
    ["X-GitHub-Event"] = "workflow_job",
    ["X-GitHub-Delivery"] = string.format("%s-%d-%d", run, number, sent),
    ["X-Hub-Signature-256"] = one[2],
  }, one[1])
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"answers": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
