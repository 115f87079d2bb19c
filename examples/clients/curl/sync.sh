#!/usr/bin/env bash
# Sends a batch through syncgate with curl and jq.
# Usage: sync.sh [--http1.1 | --http2]
set -euo pipefail

version=${1:---http2}
url=${SYNCGATE_URL:-https://127.0.0.1:8443}
export SYNCGATE_USER SYNCGATE_PASSWORD
batch='{"form":"setCustomer","data":[{"fkey":"C-1001","name":"Example Ltd"}]}'

# Posts standard input to a path; further arguments go to curl. Sets $status and $answer.
post() {
    local path=$1 result
    shift
    result=$(curl --silent --show-error "$version" ${SYNCGATE_CA:+--cacert "$SYNCGATE_CA"} \
        --header 'Content-Type: application/json' --data-binary @- \
        --write-out '\n%{http_version} %{http_code}' "$@" "$url$path")
    answer=${result%$'\n'*}
    status=${result##* }
    echo "$path: HTTP/${result##*$'\n'}" >&2
}

# Neither the password nor the token is ever an argument: others could read it with ps.
log_in() {
    post /api/getToken < <(jq -n '{username: env.SYNCGATE_USER, password: env.SYNCGATE_PASSWORD}')
    if [[ $status != 200 ]]; then
        echo "log-in failed: $answer" >&2
        exit 1
    fi
    token=$(jq -r .token.accesstoken <<<"$answer")
}

send() {
    post /api/SyncData --header @<(printf 'Authorization: Bearer %s\n' "$token") <<<"$batch"
}

log_in
for ((call = 0; call < ${SYNCGATE_CALLS:-1}; call++)); do
    send
    if [[ $status == 401 ]]; then
        log_in # The token has expired or was revoked: get a new one and try once more.
        send
    fi
    if [[ $status != 2?? ]]; then
        echo "call failed with status $status: $answer" >&2
        exit 1
    fi
    echo "$answer"
done
