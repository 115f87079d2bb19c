-- wrk: one prepared POST, sent again and again; the driver reads the last line.
local size = tonumber(os.getenv("BENCH_BODY"))
local open = '{"form":"bench","pad":"'
wrk.method = "POST"
wrk.path = os.getenv("BENCH_PATH")
wrk.body = open .. string.rep("x", size - #open - 2) .. '"}'
wrk.headers["Authorization"] = os.getenv("BENCH_TOKEN")
wrk.headers["Content-Type"] = "application/json"

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '{"done":%d,"seconds":%.6f,"bad_status":%d,"socket_errors":%d,"p50":%.1f}\n',
        summary.requests, summary.duration / 1e6, errors.status,
        errors.connect + errors.read + errors.write + errors.timeout,
        latency:percentile(50)))
end
