-- wrk: one prepared POST, sent again and again; the driver reads the last line.
local size = tonumber(os.getenv("BENCH_BODY"))
local open = '{"form":"bench","pad":"'
local body = open .. string.rep("x", size - #open - 2) .. '"}'
if os.getenv("BENCH_ROWS") == "1" then
    -- A batch as partners send it: short strings and numbers, filled up with white space.
    local row = '{"id":%d,"sku":"A-%05d","name":"Blue pen, 0.7 mm","qty":12,"price":1.95,"ok":true},'
    local rows, length = { '{"form":"bench","data":[' }, #'{"form":"bench","data":[0]}'
    for number = 1, size do
        local text = string.format(row, number, number % 100000)
        length = length + #text
        if length > size then break end
        rows[#rows + 1] = text
    end
    body = table.concat(rows) .. "0]}"
    body = body .. string.rep(" ", size - #body)
end
wrk.method = "POST"
wrk.path = os.getenv("BENCH_PATH")
wrk.body = body
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
