"""The changes to a task's record, each in one step inside the result store (Redis 5 or newer, or Valkey).

Keys, all under one prefix P:
    P:task:ID     hash: the record, and what the worker needs (`work`) until the task has ended
    P:previews:ID list: the newest previews (JPEG)
    P:queued      tasks that wait, by priority and then by arrival
    P:bells       tasks that wait, by the time (ms) at which a message has to be sent (again)
    P:running     tasks that are drawn, by the time (ms) at which their worker counts as dead
    P:ended       ended tasks, by the time (ms) at which they are forgotten
    P:photos      tasks whose photo lies in the output store
    P:webhooks    ended tasks whose caller has not been told yet, by the time (ms) of the next try
    P:held        hash: how many tasks of each token wait or run
    P:workers     workers, by the time (ms) until which they count as alive

All times are the store's own, so that the clocks of servers and workers do not matter. Every script takes
the prefix as its only key: a cluster would need them on one node.
"""

from __future__ import annotations

_COMMON = """
local P, id = KEYS[1], ARGV[1]
local task = P .. ':task:' .. id
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function seconds() return string.format('%.3f', now / 1000) end
local function after(ms) return string.format('%.0f', now + tonumber(ms)) end
local function let_go()
    local token = redis.call('HGET', task, 'token')
    if token and redis.call('HINCRBY', P .. ':held', token, -1) <= 0 then
        redis.call('HDEL', P .. ':held', token)
    end
end
local function finish(status, outputs, error, data, keep)
    redis.call('HSET', task, 'status', status, 'outputs', outputs, 'error', error, 'error_data', data,
               'finished', seconds())
    redis.call('HDEL', task, 'owner', 'cancel', 'work')
    let_go()
    redis.call('ZREM', P .. ':queued', id)
    redis.call('ZREM', P .. ':bells', id)
    redis.call('ZREM', P .. ':running', id)
    redis.call('DEL', P .. ':previews:' .. id)
    redis.call('ZADD', P .. ':ended', after(keep), id)
    if redis.call('HEXISTS', task, 'webhook') == 1 then
        redis.call('ZADD', P .. ':webhooks', after(0), id)
    end
end
local function wait_again()
    redis.call('HSET', task, 'status', 'queued', 'step', 0, 'total', 0)
    redis.call('HDEL', task, 'owner')
    redis.call('ZREM', P .. ':running', id)
    redis.call('ZADD', P .. ':queued', redis.call('HGET', task, 'rank'), id)
    redis.call('ZADD', P .. ':bells', after(0), id)
end
local function mine(owner)
    return redis.call('HGET', task, 'owner') == owner and redis.call('HGET', task, 'status') == 'running'
end
"""

# id, limit, priority 0..9 (9 first), ms until a message is sent if nobody has, photo 0 | 1, webhook or "",
# fixed, work, token, most of that token -> "taken", "full" or "enough"
SUBMIT = (
    _COMMON
    + """
if redis.call('EXISTS', task) == 1 then return 'taken' end  -- the answer was lost on its way
if redis.call('ZCARD', P .. ':queued') >= tonumber(ARGV[2]) then return 'full' end
if tonumber(redis.call('HGET', P .. ':held', ARGV[9]) or 0) >= tonumber(ARGV[10]) then return 'enough' end
redis.call('HINCRBY', P .. ':held', ARGV[9], 1)
local rank = string.format('%.0f', (9 - tonumber(ARGV[3])) * 1e12 + redis.call('INCR', P .. ':seq'))
redis.call('HSET', task, 'status', 'queued', 'created', seconds(), 'rank', rank, 'priority', ARGV[3],
           'attempts', 0, 'fixed', ARGV[7], 'work', ARGV[8], 'token', ARGV[9])
if ARGV[6] ~= '' then redis.call('HSET', task, 'webhook', ARGV[6]) end
redis.call('ZADD', P .. ':queued', rank, id)
redis.call('ZADD', P .. ':bells', after(ARGV[4]), id)
if ARGV[5] == '1' then redis.call('SADD', P .. ':photos', id) end
return 'taken'
"""
)

# id, owner, lease ms -> "claimed" and the work; or "gone", "busy", "ended"
CLAIM = (
    _COMMON
    + """
local status = redis.call('HGET', task, 'status')
if not status then return {'gone'} end
if mine(ARGV[2]) then return {'claimed', redis.call('HGET', task, 'work')} end  -- the answer was lost
if status == 'running' then return {'busy'} end
if status ~= 'queued' then return {'ended'} end
redis.call('HSET', task, 'status', 'running', 'owner', ARGV[2], 'step', 0, 'total', 0)
redis.call('HSETNX', task, 'started', seconds())
redis.call('HINCRBY', task, 'attempts', 1)
redis.call('ZREM', P .. ':queued', id)
redis.call('ZREM', P .. ':bells', id)
redis.call('ZADD', P .. ':running', after(ARGV[3]), id)
return {'claimed', redis.call('HGET', task, 'work')}
"""
)

# id, owner, lease ms[, step, total, previews...] -> "on", "cancel" or "lost"
BEAT = (
    _COMMON
    + """
if not mine(ARGV[2]) then return 'lost' end
redis.call('ZADD', P .. ':running', after(ARGV[3]), id)
if ARGV[4] then redis.call('HSET', task, 'step', ARGV[4], 'total', ARGV[5]) end
if ARGV[6] then
    redis.call('DEL', P .. ':previews:' .. id)
    for index = 6, #ARGV do redis.call('RPUSH', P .. ':previews:' .. id, ARGV[index]) end
    redis.call('HINCRBY', task, 'seen', 1)
end
return redis.call('HEXISTS', task, 'cancel') == 1 and 'cancel' or 'on'
"""
)

# id, owner, status, outputs, error, error_data, keep ms, warnings -> whether it was this owner's to end
END = (
    _COMMON
    + """
if not mine(ARGV[2]) then return 0 end
finish(ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7])
redis.call('HSET', task, 'warnings', ARGV[8])
return 1
"""
)

# id, owner -> whether it waits again; an attempt that was given back does not count
RELEASE = (
    _COMMON
    + """
if not mine(ARGV[2]) then return 0 end
redis.call('HINCRBY', task, 'attempts', -1)
wait_again()
return 1
"""
)

# id, owner that died, most attempts, error, error_data, keep ms -> "queued", "failed" or "moved on"
RECLAIM = (
    _COMMON
    + """
if not mine(ARGV[2]) then return 'moved on' end
if tonumber(redis.call('HGET', task, 'attempts')) >= tonumber(ARGV[3]) then
    finish('failed', '[]', ARGV[4], ARGV[5], ARGV[6])
    return 'failed'
end
wait_again()
return 'queued'
"""
)

# id, keep ms -> whether there is such a task. One that waits ends here, one that runs is told to.
CANCEL = (
    _COMMON
    + """
local status = redis.call('HGET', task, 'status')
if not status then return 0 end
if status == 'queued' then finish('cancelled', '[]', '', '', ARGV[2]) end
if status == 'running' then redis.call('HSET', task, 'cancel', 1) end
return 1
"""
)

# "", how much earlier to ring (ms), ms until the next try if this one dies -> ids whose bell has to be rung.
# Earlier only where a message was sent once: until then a photo may still be on its way to its store.
DUE_BELLS = (
    _COMMON
    + """
local until_then = after(ARGV[2])
local found = redis.call('ZRANGEBYSCORE', P .. ':bells', '-inf', until_then, 'WITHSCORES', 'LIMIT', 0, 100)
local due = {}
for index = 1, #found, 2 do
    local waiting = found[index]
    if tonumber(found[index + 1]) <= now or redis.call('HEXISTS', P .. ':task:' .. waiting, 'sent') == 1 then
        due[#due + 1] = waiting
        redis.call('ZADD', P .. ':bells', 'XX', after(ARGV[3]), waiting)
    end
end
return due
"""
)

# id, ms -> nothing; the bell was rung, and is rung again after so long
RUNG = (
    _COMMON
    + """
if redis.call('EXISTS', task) == 1 then redis.call('HSET', task, 'sent', 1) end
redis.call('ZADD', P .. ':bells', 'XX', after(ARGV[2]), id)
"""
)

# "" -> ids and owners of what runs; those whose worker has been silent for too long come first, marked 1
RUNNING = (
    _COMMON
    + """
local found = {}
for _, running in ipairs(redis.call('ZRANGE', P .. ':running', 0, -1, 'WITHSCORES')) do
    found[#found + 1] = running
end
local answer = {}
for index = 1, #found, 2 do
    local owner = redis.call('HGET', P .. ':task:' .. found[index], 'owner')
    if owner then
        answer[#answer + 1] = {found[index], owner, tonumber(found[index + 1]) < now and 1 or 0}
    end
end
return answer
"""
)

# "", what to forget ("ended" | "workers") -> members whose time is over
DUE = _COMMON + "return redis.call('ZRANGEBYSCORE', P .. ':' .. ARGV[2], '-inf', now, 'LIMIT', 0, 100)"

# worker, ms -> how many workers live
ALIVE = (
    _COMMON
    + """
if id ~= '' then redis.call('ZADD', P .. ':workers', after(ARGV[2]), id) end
redis.call('ZREMRANGEBYSCORE', P .. ':workers', '-inf', now)
return redis.call('ZCARD', P .. ':workers')
"""
)

# "", ms until the next try if this one dies -> ids of ended tasks whose caller has to be told now
DUE_WEBHOOKS = (
    _COMMON
    + """
local due = redis.call('ZRANGEBYSCORE', P .. ':webhooks', '-inf', now, 'LIMIT', 0, 20)
for _, ended in ipairs(due) do redis.call('ZADD', P .. ':webhooks', 'XX', after(ARGV[2]), ended) end
return due
"""
)

# id -> nothing; all of a task is gone
FORGET = (
    _COMMON
    + """
local status = redis.call('HGET', task, 'status')
if status == 'queued' or status == 'running' then let_go() end
redis.call('DEL', task, P .. ':previews:' .. id)
for _, name in ipairs({'queued', 'bells', 'running', 'ended', 'webhooks'}) do
    redis.call('ZREM', P .. ':' .. name, id)
end
"""
)
