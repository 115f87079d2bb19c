//! What the server does in one step. Each script keeps to one slot of a cluster.
//!
//! A gateway says what time it has, and the server's own clock bounds it: what the server's has not
//! reached is still to come. So a gateway whose clock is ahead makes nothing over that others hold live.

/// Ends a token: a trace takes its place, unless there is no memory for one. Answers what was there,
/// or nothing when it is over already or its password was given too late. Keys: the token. Arguments: the
/// trace, to which its lineage is added, how long it is kept in milliseconds, the first moment (4 bytes)
/// that is too late, or nothing.
pub(super) const END: &str = "\
local value = redis.call('GET', KEYS[1])
if not value or string.sub(value, 2, 2) ~= 'T' then return false end
if ARGV[3] ~= '' then
  for place = 1, 4 do
    local given, limit = string.byte(value, 10 + place), string.byte(ARGV[3], place)
    if given < limit then break end
    if given > limit or place == 4 then return false end
  end
end
local trace = ARGV[1] .. string.sub(value, 19, 28)
local kept = redis.pcall('SET', KEYS[1], trace, 'PX', ARGV[2])
if kept.err then redis.call('DEL', KEYS[1]) end
return value";

/// Notes that another took a token's place, and lets it end sooner; it is remembered for longer. Answers
/// its end until then (4 bytes), 1 when that was not later, and 0 when there is none or it is over. Keys:
/// the token. Arguments: the new end, now (4 bytes each), how long it is remembered in milliseconds.
pub(super) const REPLACE: &str = "\
local value = redis.call('GET', KEYS[1])
if not value or string.sub(value, 2, 2) ~= 'T' then return 0 end
local was = string.sub(value, 3, 6)
local function later(one, other)
  for place = 1, 4 do
    local a, b = string.byte(one, place), string.byte(other, place)
    if a ~= b then return a > b end
  end
  return false
end
if not later(was, ARGV[2]) then return 0 end
local a, b, c, d = string.byte(value, 15, 18)
if a + b + c + d == 0 then redis.call('SETRANGE', KEYS[1], 14, ARGV[1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if not later(was, ARGV[1]) then return 1 end
redis.call('SETRANGE', KEYS[1], 2, ARGV[1])
return was";

/// Enters a token in the lineage of the one that it is to replace. Answers 1, or 0 when the lineage is
/// over or as long as may be. Keys: the lineage. Arguments: the old token, the new one, how long the
/// lineage is kept in milliseconds, how many tokens it may have.
pub(super) const JOIN: &str = "\
if redis.call('ZSCORE', KEYS[1], 'ended') then return 0 end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then return 0 end
redis.call('ZADD', KEYS[1], 0, ARGV[1], 0, ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1";

/// Enters a token in its lineage again, where that was lost. Answers 1, or 0 when the lineage was ended
/// without it. Keys: the lineage. Arguments: the old token, the new one, how long the lineage is kept in
/// milliseconds.
pub(super) const JOIN_AGAIN: &str = "\
if redis.call('ZSCORE', KEYS[1], ARGV[2]) then return 1 end
if redis.call('ZSCORE', KEYS[1], 'ended') then return 0 end
redis.call('ZADD', KEYS[1], 0, ARGV[1], 0, ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1";

/// Lets nothing enter a lineage any more, and answers which tokens did. That is noted also where none did:
/// one may have that the server lost. Where there is no memory to note it, there is none to enter one
/// either. Keys: the lineage. Arguments: how long that is kept of an empty one, in milliseconds.
pub(super) const SEVER: &str = "\
local ids = redis.call('ZRANGE', KEYS[1], 0, -1)
local noted = redis.pcall('ZADD', KEYS[1], 0, 'ended')
if #ids == 0 and noted == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return ids";

/// Adds a token to its user's. Answers an empty list when it is there now, and a list with `of replaced` when
/// it is there beside the one that it replaces, for both of which there is no room. Else which tokens have to
/// end first; a list with an empty text where none has to. Keys: the user's tokens by issue,
/// by end, and by last use. Arguments: the token, when it is issued in milliseconds, its end in
/// seconds, now in seconds, how many there may be, `1` if the oldest makes room, the token it replaces or
/// nothing, after how many seconds without a use one ends or nothing.
pub(super) const ADD: &str = "\
local reached = math.min(tonumber(ARGV[4]), tonumber(redis.call('TIME')[1]))
local over = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', reached)
for _, id in ipairs(over) do
  redis.call('ZREM', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
  if KEYS[3] then redis.call('ZREM', KEYS[3], id) end
end
local count, most, answer = redis.call('ZCARD', KEYS[1]), tonumber(ARGV[5]), {}
if count >= most then
  if ARGV[8] ~= '' then
    local unused = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', reached - ARGV[8], 'LIMIT', 0, 100)
    if #unused > 0 then
      for place, id in ipairs(unused) do
        redis.call('ZADD', KEYS[3], 0, id)
        unused[place] = 'unused ' .. id
      end
      return unused
    end
  end
  if ARGV[7] ~= '' and redis.call('ZSCORE', KEYS[1], ARGV[7]) then
    answer = {'of replaced'}
  elseif ARGV[6] ~= '1' then
    return {''}
  else
    return redis.call('ZRANGE', KEYS[1], 0, count - most)
  end
end
local issued = tonumber(ARGV[2])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
if last and tonumber(last) >= issued then issued = tonumber(last) + 1 end
redis.call('ZADD', KEYS[1], issued, ARGV[1])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
if ARGV[8] ~= '' then redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1]) end
local latest = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2]
local left = (tonumber(latest) - tonumber(ARGV[4])) * 1000 + 3600000
redis.call('PEXPIRE', KEYS[1], left)
redis.call('PEXPIRE', KEYS[2], left)
if KEYS[3] then redis.call('PEXPIRE', KEYS[3], left) end
return answer";

/// What `ADD` answers of a token that has the room of the one that it replaces.
pub(super) const OF_REPLACED: &str = "of replaced";

/// Whether a token has not ended for want of use. That one has is noted, as far as the server has memory.
/// Key: its user's tokens by last use. Arguments: now in seconds, after how many without a use it ends, the
/// token.
pub(super) const IN_USE: &str = "\
local reached = math.min(tonumber(ARGV[1]), tonumber(redis.call('TIME')[1]))
local last = redis.call('ZSCORE', KEYS[1], ARGV[3])
if last and tonumber(last) + tonumber(ARGV[2]) <= reached then
  redis.pcall('ZADD', KEYS[1], 0, ARGV[3])
  return 0
end
return 1";

/// Notes uses of tokens of a user; not of those that have ended for want of use. Keys: the user's tokens
/// by end, and by last use. Arguments: each token and the second of its use.
pub(super) const REPORT_USES: &str = "\
local time = tonumber(redis.call('TIME')[1])
for place = 1, #ARGV, 2 do
  local last, used = redis.call('ZSCORE', KEYS[2], ARGV[place]), math.min(tonumber(ARGV[place + 1]), time)
  if redis.call('ZSCORE', KEYS[1], ARGV[place])
    and last ~= '0' and (not last or tonumber(last) < used) then
    redis.call('ZADD', KEYS[2], used, ARGV[place])
    if not last then redis.call('PEXPIRE', KEYS[2], redis.call('PTTL', KEYS[1])) end
  end
end
return 1";

/// Marks a user's tokens that nobody has used as ended, which no use undoes, and answers which they are:
/// a bounded number. Keys: the user's tokens by last use. Arguments: now in seconds, after how many
/// without a use they end.
pub(super) const RETIRE: &str = "\
local reached = math.min(tonumber(ARGV[1]), tonumber(redis.call('TIME')[1]))
local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', reached - ARGV[2], 'LIMIT', 0, 1000)
for _, id in ipairs(over) do redis.call('ZADD', KEYS[1], 0, id) end
return over";

/// Takes a place for a token, gives one back, or both. Answers 1 when that is done, 0 when none is free,
/// and 2 when one may be, since not all that are over were counted out. Keys: the seconds in which
/// tokens end, and how many do in each. Arguments: now, the end of the token whose place is given back
/// or nothing, the end of the one that takes a place or nothing, how many there may be or nothing.
pub(super) const RESERVE: &str = "\
local function change(second, by)
  redis.call('HINCRBY', KEYS[2], 'all', by)
  if redis.call('HINCRBY', KEYS[2], second, by) == 0 then
    redis.call('HDEL', KEYS[2], second)
    redis.call('ZREM', KEYS[1], second)
  end
end
local reached = math.min(tonumber(ARGV[1]), tonumber(redis.call('TIME')[1]))
local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', reached, 'LIMIT', 0, 1000)
for _, second in ipairs(over) do
  change(second, -tonumber(redis.call('HGET', KEYS[2], second)))
end
if ARGV[2] ~= '' and redis.call('HGET', KEYS[2], ARGV[2]) then change(ARGV[2], -1) end
if ARGV[3] == '' then return 1 end
if ARGV[4] ~= '' then
  local all = tonumber(redis.call('HGET', KEYS[2], 'all') or 0)
  if all >= tonumber(ARGV[4]) then return #over == 1000 and 2 or 0 end
end
change(ARGV[3], 1)
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[3])
local latest = redis.call('ZRANGE', KEYS[1], -1, -1)[1]
local left = (tonumber(latest) - tonumber(ARGV[1])) * 1000 + 3600000
redis.call('PEXPIRE', KEYS[1], left)
redis.call('PEXPIRE', KEYS[2], left)
return 1";

/// Answers how many logins failed and how many milliseconds ago the last did, or nothing. Keys: the
/// origin's failures.
pub(super) const FAILURES: &str = "\
local fields = redis.call('HMGET', KEYS[1], 'count', 'last')
if not fields[1] or not fields[2] then return {} end
local time = redis.call('TIME')
local age = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(fields[2])
return {tonumber(fields[1]), math.max(age, 0)}";

/// Counts failed logins; what can be refused is tried before that, so that it is done or not. Keys: the
/// origin's failures. Arguments: how long they are remembered in milliseconds, how many they are.
pub(super) const FAIL: &str = "\
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'last', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('HINCRBY', KEYS[1], 'count', ARGV[2])
return 1";

/// Forgives failed logins, unless that was done lately. Keys: the origin's failures, and whether they
/// were forgiven. Arguments: how long that is lately, in milliseconds.
pub(super) const FORGIVE: &str = "\
if redis.call('SET', KEYS[2], 1, 'NX', 'PX', ARGV[1]) then redis.call('DEL', KEYS[1]) end
return 1";

/// Answers the server's time in milliseconds and all of a counter, which is begun if it is not there; what
/// is too old goes. Keys: the counter. Arguments: what a new one is told from others by, how many seconds
/// a count is kept.
pub(super) const READ_COUNTER: &str = "\
local time = redis.call('TIME')
local answer = {time[1] * 1000 + math.floor(time[2] / 1000)}
local all = redis.call('HGETALL', KEYS[1])
if not redis.call('HGET', KEYS[1], 'born') then
  local born = ARGV[1] .. ' ' .. string.format('%.0f', answer[1])
  local begun = redis.pcall('HSET', KEYS[1], 'born', born)
  if type(begun) ~= 'table' then
    all[#all + 1] = 'born'
    all[#all + 1] = born
  end
end
for place = 1, #all, 2 do
  local at = tonumber(string.match(all[place + 1], '^%d+ (%d+)$'))
  if at and at + tonumber(ARGV[2]) < tonumber(time[1]) then
    redis.pcall('HDEL', KEYS[1], all[place])
  else
    answer[#answer + 1] = all[place]
    answer[#answer + 1] = all[place + 1]
  end
end
return answer";

/// Counts revocations of a gateway. Keys: the counter. Arguments: the gateway, how many there are, or
/// nothing for one more.
pub(super) const COUNT_REVOCATION: &str = "\
local value = redis.call('HGET', KEYS[1], ARGV[1])
local count = tonumber(value and string.match(value, '^%d+') or 0)
if ARGV[2] == '' then count = count + 1 else count = math.max(count, tonumber(ARGV[2])) end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', count) .. ' ' .. redis.call('TIME')[1])
return 1";

/// Notes what is missing, so that other gateways miss it too; unless the state was accepted meanwhile. Keys:
/// the counter. Arguments: when it was accepted last, then each field and its value.
pub(super) const MISS: &str = "\
if (redis.call('HGET', KEYS[1], 'accepted') or '0') ~= ARGV[1] then return 0 end
for place = 2, #ARGV, 2 do
  local value = redis.call('HGET', KEYS[1], ARGV[place])
  local wanted = tonumber(value and string.match(value, '^%d+') or 0)
  if tonumber(string.match(ARGV[place + 1], '^%d+')) > wanted then
    redis.call('HSET', KEYS[1], ARGV[place], ARGV[place + 1])
  end
end
return 1";

/// Notes that the state is to be taken as it is: nothing is missing any more. Keys: the counter.
pub(super) const ACCEPT: &str = "\
local all = redis.call('HGETALL', KEYS[1])
for place = 1, #all, 2 do
  if string.sub(all[place], 1, 7) == 'wanted:' then redis.call('HDEL', KEYS[1], all[place]) end
end
local before = tonumber(redis.call('HGET', KEYS[1], 'accepted') or 0)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'accepted', string.format('%.0f', math.max(before + 1, now)))
return 1";

/// What `ADD` surely does with the keys, without a change. Keys: the user's tokens as there.
pub(super) const DRY_RUN_ADD: &str = "\
for _, key in ipairs(KEYS) do
  redis.call('ZCARD', key)
  redis.call('ZRANGEBYSCORE', key, '-inf', '-inf')
  redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
  redis.call('ZADD', key, 'XX', 0, '')
  redis.call('PEXPIRE', key .. ':nothing', 1)
end
return 1";

/// What `RESERVE` surely does with the keys, without a change. Answers whether there is a place. Keys: as
/// there. Arguments: now, how many places there may be.
pub(super) const DRY_RUN_RESERVE: &str = "\
local reached = math.min(tonumber(ARGV[1]), tonumber(redis.call('TIME')[1]))
local all = tonumber(redis.call('HGET', KEYS[2], 'all') or 0)
for _, second in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', reached, 'LIMIT', 0, 1000)) do
  all = all - tonumber(redis.call('HGET', KEYS[2], second) or 0)
end
redis.call('ZADD', KEYS[1], 'XX', 0, '')
redis.call('ZRANGE', KEYS[1], -1, -1)
redis.call('PEXPIRE', KEYS[1] .. ':nothing', 1)
if redis.call('HGET', KEYS[2], 'all') then redis.call('HINCRBY', KEYS[2], 'all', 0) end
return all < tonumber(ARGV[2]) and 1 or 0";
