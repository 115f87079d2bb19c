-- wrk: logins of many users in turn, or of one; the driver reads the last line.
local users = tonumber(os.getenv("BENCH_USERS") or "0")
local number = 0
wrk.method = "POST"
wrk.path = "/api/getToken"
wrk.headers["Content-Type"] = "application/json"

function request()
    local name = "bench"
    if users > 0 then
        number = (number + 1) % users
        name = "user-" .. number
    end
    local body = '{"username":"' .. name .. '","password":"' .. os.getenv("BENCH_PASSWORD") .. '"}'
    return wrk.format(nil, nil, nil, body)
end

function done(summary)
    local errors = summary.errors
    io.write(string.format(
        '{"done":%d,"seconds":%.6f,"bad_status":%d,"socket_errors":%d}\n', summary.requests,
        summary.duration / 1e6, errors.status,
        errors.connect + errors.read + errors.write + errors.timeout))
end
