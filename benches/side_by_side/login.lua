-- wrk: logins of many users in turn; the driver reads the last line.
local users = tonumber(os.getenv("BENCH_USERS"))
local number = 0
wrk.method = "POST"
wrk.path = "/api/getToken"
wrk.headers["Content-Type"] = "application/json"

function request()
    number = (number + 1) % users
    local body = '{"username":"user-' .. number .. '","password":"' .. os.getenv("BENCH_PASSWORD") .. '"}'
    return wrk.format(nil, nil, nil, body)
end

function done(summary)
    local errors = summary.errors
    io.write(string.format(
        '{"done":%d,"bad_status":%d,"socket_errors":%d}\n', summary.requests, errors.status,
        errors.connect + errors.read + errors.write + errors.timeout))
end
