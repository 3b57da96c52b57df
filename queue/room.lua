-- The waiting room's statements: every change of state is one of these, atomic, on the Redis 6.2 subset.
--
-- KEYS[1] is the prefix, with a hash tag so that all keys live on one node. ARGV[1] is the operation, ARGV[2] the time
-- in ms ('' for the server's own clock: tests bring theirs), the rest are its arguments. Times and costs are whole ms.
--
--   P:q:KIND     ZSET id -> score       the line; position is the rank
--   P:e:KIND     ZSET id -> entered-at   since when they have been in line without a break
--   P:hb         ZSET id -> absent-at   presence of those who wait
--   P:p          ZSET id -> forget-at   parked: out of line, place kept
--   P:g:KIND     ZSET id -> expires-at  granted, not yet redeemed
--   P:r:KIND     ZSET id -> lease-until running
--   P:w:KIND     ZSET worker -> alive-until      P:slots  HASH worker -> slots
--   P:jobs       HASH worker -> turns that it works on at once    P:end  HASH worker -> when one of them last ended
--   P:work:KIND  STRING sum of the estimates of those who wait
--   P:t:ID       HASH the ticket
--   P:a:ACC      SET ids that are open           P:tat:ACC  STRING the account's clock (GCRA)
--   P:i:ACC:KEY  STRING "id digest"              P:k:ACC    SET every key that names the account, for erasing
--   P:x:ACC      STRING sealed tickets that end by then were made before the account was erased
--   P:d:ACC      STRING "seconds lapses-at": access tokens issued until those seconds are refused
--   P:sw:KIND    LIST "predicted actual" waits until the grant
--   P:said:KIND  LIST "predicted actual" until the turn began      P:took:KIND  LIST "estimate used"
--   P:c:KIND     HASH sums that only grow (tally.py): tickets that came to each state, waits, quotes that held
local P = KEYS[1]
local call = redis.call

local function clock()
  if ARGV[2] ~= '' then return tonumber(ARGV[2]) end
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local now = clock()
local SAMPLES = 400

local function int(n) return string.format('%.0f', n) end
local function ticket_key(id) return P .. ':t:' .. id end
local function get(id, field) return call('HGET', ticket_key(id), field) end

-- What is offered: turns at once, workers, and turns that they work on at once.
local function slots(kind)
  local workers = call('ZRANGEBYSCORE', P .. ':w:' .. kind, '(' .. int(now), '+inf')
  local turns, at_once = 0, 0
  for _, worker in ipairs(workers) do
    local offer = call('HGET', P .. ':slots', worker) or 0
    turns, at_once = turns + tonumber(offer), at_once + tonumber(call('HGET', P .. ':jobs', worker) or offer)
  end
  return turns, workers, at_once
end

local function leave(worker)
  call('HDEL', P .. ':slots', worker)
  call('HDEL', P .. ':jobs', worker)
  call('HDEL', P .. ':end', worker)
end

-- The worker of a turn that ends begins the next one that it has, unless this one was itself waiting there.
local function free_worker(id, kind)
  local worker = get(id, 'worker')
  local jobs = worker and call('HGET', P .. ':jobs', worker)
  if not jobs then return end
  local started, before = tonumber(get(id, 'started')), 0
  for _, other in ipairs(call('ZRANGE', P .. ':r:' .. kind, 0, -1)) do
    if get(other, 'worker') == worker and tonumber(get(other, 'started')) < started then before = before + 1 end
  end
  if before < tonumber(jobs) then call('HSET', P .. ':end', worker, int(now)) end
end

-- The account's clock moves by ms (negative: refund). A clock that has lapsed owes nothing and gets nothing.
local function move_clock(acc, ms)
  local key = P .. ':tat:' .. acc
  local tat = call('GET', key)
  if tat and tonumber(tat) > now then call('SET', key, int(tonumber(tat) + ms), 'KEEPTTL') end
end

local function set_clock(acc, tat)
  if tat > now then call('SET', P .. ':tat:' .. acc, int(tat), 'PX', int(tat - now)) end
end

local function tally(kind, field, by) call('HINCRBY', P .. ':c:' .. kind, field, by or 1) end

-- The wait that was quoted at the join, against the real one: counted when the turn begins, and also for whoever leaves
-- after that time without having had a turn. Who leaves before it, or had a turn and didn't come, says nothing.
local function settle_quote(id, kind, begun)
  local quoted = get(id, 'quoted')
  if not quoted then return end
  call('HDEL', ticket_key(id), 'quoted')
  local late = now - tonumber(get(id, 'joined')) > tonumber(quoted)
  if not begun and get(id, 'state') == 'granted' then return end
  if begun or late then tally(kind, 'quoted') end
  if begun and not late then tally(kind, 'covered') end
end

local function enter(id, kind, score, est, presence)
  call('ZADD', P .. ':q:' .. kind, int(score), id)
  call('ZADD', P .. ':e:' .. kind, int(now), id)
  call('ZADD', P .. ':hb', int(now + presence), id)
  call('INCRBY', P .. ':work:' .. kind, int(est))
  call('HSET', ticket_key(id), 'state', 'waiting')
end

local function leave_line(id, kind)
  if call('ZREM', P .. ':q:' .. kind, id) == 1 then
    call('DECRBY', P .. ':work:' .. kind, get(id, 'est'))
  end
  call('ZREM', P .. ':e:' .. kind, id)
  call('ZREM', P .. ':hb', id)
end

-- Out of every set, remembered as ended for `tombstone` ms.
local function close(id, state, tombstone)
  local kind, acc = get(id, 'kind'), get(id, 'acc')
  settle_quote(id, kind, false)
  tally(kind, state)
  free_worker(id, kind)
  leave_line(id, kind)
  call('ZREM', P .. ':p', id)
  call('ZREM', P .. ':g:' .. kind, id)
  call('ZREM', P .. ':r:' .. kind, id)
  call('SREM', P .. ':a:' .. acc, id)
  call('HSET', ticket_key(id), 'state', state)
  call('HDEL', ticket_key(id), 'nonce', 'nonce_expires', 'worker', 'stage', 'done', 'total')
  call('PEXPIRE', ticket_key(id), tombstone)
end

-- A turn that ended in order, well ('') or by a problem's code.
local function conclude(id, used_ms, code, bytes, sha256, tombstone)
  call('HSET', ticket_key(id), 'code', code, 'out_bytes', bytes, 'sha256', sha256, 'gpu_ms', used_ms)
  close(id, code == '' and 'succeeded' or 'failed', tombstone)
end

local function park(id, kind, parked)
  settle_quote(id, kind, false)
  tally(kind, 'parked')
  free_worker(id, kind)
  leave_line(id, kind)
  call('ZREM', P .. ':r:' .. kind, id)
  call('HDEL', ticket_key(id), 'nonce', 'nonce_expires', 'worker', 'stage', 'done', 'total')
  call('HSET', ticket_key(id), 'state', 'parked', 'returned', '1')
  call('ZADD', P .. ':p', int(now + parked), id)
end

-- An interrupted turn: the place is kept, unless it has been interrupted too often.
local function give_back(id, parked, max_attempts, tombstone)
  local attempts = call('HINCRBY', ticket_key(id), 'attempts', 1)
  if attempts >= max_attempts then
    move_clock(get(id, 'acc'), -tonumber(get(id, 'debt')))
    close(id, 'aborted', tombstone)
  else
    park(id, get(id, 'kind'), parked)
  end
end

local function mine(id, worker)
  local kind = get(id, 'kind')
  return kind and get(id, 'worker') == worker and call('ZSCORE', P .. ':r:' .. kind, id) and kind
end

local function sample(key, value)
  call('LPUSH', key, value)
  call('LTRIM', key, 0, SAMPLES - 1)
end

-- {fields, rank or -1}
local function view(id)
  local fields = call('HGETALL', ticket_key(id))
  if #fields == 0 then return {} end
  local rank = call('ZRANK', P .. ':q:' .. get(id, 'kind'), id)
  return {fields, rank or -1}
end

local ops = {}

-- id kind acc est debt boost key digest max_tickets max_waiting horizon presence idempotency | field value …
function ops.join(a)
  local id, kind, acc = a[1], a[2], a[3]
  local est, debt, boost = tonumber(a[4]), tonumber(a[5]), tonumber(a[6])
  local key = P .. ':i:' .. acc .. ':' .. a[7]
  if a[7] ~= '' then
    local old = call('GET', key)
    if old then
      local old_id, digest = string.match(old, '^(%S+) (%S+)$')
      if digest ~= a[8] then return {'mismatch'} end
      if call('EXISTS', ticket_key(old_id)) == 1 then return {'replay', old_id} end
    end
  end
  local open = call('SMEMBERS', P .. ':a:' .. acc)
  if #open >= tonumber(a[9]) then
    local first = -1
    for _, other in ipairs(open) do
      local rank = call('ZRANK', P .. ':q:' .. kind, other)
      if rank and (first < 0 or rank < first) then first = rank end
    end
    return {'tickets', first}
  end
  if call('ZCARD', P .. ':q:' .. kind) >= tonumber(a[10]) then return {'full'} end
  local tat = math.max(now, tonumber(call('GET', P .. ':tat:' .. acc) or 0))
  if tat - now > tonumber(a[11]) then return {'quota', int(tat - now - tonumber(a[11]))} end
  set_clock(acc, tat + debt)
  -- -1: nothing was predicted. Replicas of before `said` take it from here at every grant; they may run beside these.
  local fields = {'acc', acc, 'kind', kind, 'est', a[4], 'debt', a[5], 'score', int(tat - boost), 'joined', int(now),
                  'attempts', '0', 'predicted', '-1'}
  for i = 14, #a do fields[#fields + 1] = a[i] end
  call('HSET', ticket_key(id), unpack(fields))
  enter(id, kind, tat - boost, est, tonumber(a[12]))
  tally(kind, 'waiting')
  call('SADD', P .. ':a:' .. acc, id)
  call('SADD', P .. ':k:' .. acc, ticket_key(id))
  if a[7] ~= '' then
    call('SET', key, id .. ' ' .. a[8], 'PX', a[13])
    call('SADD', P .. ':k:' .. acc, key)
  end
  call('PEXPIRE', P .. ':k:' .. acc, a[13])
  return {'ok', id}
end

-- Whether a ticket that lives until `life` has, or was made before its account was erased.
local function over(acc, life)
  return now > life or life <= tonumber(call('GET', P .. ':x:' .. acc) or 0)
end

-- A forgotten ticket into the store again. a: id acc kind est debt score …; its other fields begin at `first`, and in
-- front of them stands for how long the account is known to have had it.
local function bring_back(a, first)
  local id, acc = a[1], a[2]
  local fields = {'acc', acc, 'kind', a[3], 'est', a[4], 'debt', a[5], 'score', a[6], 'returned', '1'}
  for i = first, #a do fields[#fields + 1] = a[i] end
  call('HSET', ticket_key(id), unpack(fields))
  call('SADD', P .. ':k:' .. acc, ticket_key(id))
  call('PEXPIRE', P .. ':k:' .. acc, a[first - 1])
end

-- id acc kind est debt score presence max_tickets clock life remember | field value …
function ops.restore(a)
  local id, acc, kind, est = a[1], a[2], a[3], tonumber(a[4])
  if call('EXISTS', ticket_key(id)) == 1 then return {'known'} end
  if over(acc, tonumber(a[10])) then return {'gone'} end
  if call('SCARD', P .. ':a:' .. acc) >= tonumber(a[8]) then return {'tickets', -1} end
  local tat = tonumber(call('GET', P .. ':tat:' .. acc) or 0)
  set_clock(acc, math.max(tat, tonumber(a[9])))
  bring_back(a, 12)
  enter(id, kind, tonumber(a[6]), est, tonumber(a[7]))
  call('SADD', P .. ':a:' .. acc, id)
  return {'ok'}
end

-- id
function ops.view(a) return view(a[1]) end

-- id presence
function ops.beat(a)
  local id, presence = a[1], tonumber(a[2])
  local state = get(id, 'state')
  if state == 'waiting' then
    call('ZADD', P .. ':hb', 'XX', int(now + presence), id)
  elseif state == 'parked' then
    call('ZREM', P .. ':p', id)
    enter(id, get(id, 'kind'), tonumber(get(id, 'score')), tonumber(get(id, 'est')), presence)
  end
  return view(id)
end

-- id told predicted, in ms: what the person was told and what that was made of. Whoever has a turn by now was not told.
function ops.quote(a)
  if get(a[1], 'state') == 'waiting' and not get(a[1], 'returned') then
    call('HSET', ticket_key(a[1]), 'quoted', a[2], 'predicted', a[3])
  end
  return 1
end

-- kind
function ops.tally(a) return call('HGETALL', P .. ':c:' .. a[1]) end

-- kind grant_ms ahead seed parked | bound of a wait in ms …
function ops.grant(a)
  local kind, given = a[1], {}
  local free = slots(kind) * (1 + tonumber(a[3])) - call('ZCARD', P .. ':g:' .. kind) - call('ZCARD', P .. ':r:' .. kind)
  while free > 0 do
    local first = call('ZRANGE', P .. ':q:' .. kind, 0, 0)[1]
    if not first then break end
    if tonumber(call('ZSCORE', P .. ':hb', first) or 0) <= now then
      park(first, kind, tonumber(a[5]))  -- never a turn to somebody who isn't there
    else
      leave_line(first, kind)
      local expires = int(now + tonumber(a[2]))
      call('ZADD', P .. ':g:' .. kind, expires, first)
      call('HSET', ticket_key(first), 'state', 'granted', 'nonce', redis.sha1hex(a[4] .. first), 'nonce_expires', expires)
      tally(kind, 'granted')
      if not get(first, 'returned') then
        local wait = now - tonumber(get(first, 'joined'))
        sample(P .. ':sw:' .. kind, get(first, 'predicted') .. ' ' .. int(wait))
        local bucket = 0
        while a[6 + bucket] and wait > tonumber(a[6 + bucket]) do bucket = bucket + 1 end
        tally(kind, 'wait:' .. bucket)
        tally(kind, 'wait_ms', int(wait))
      end
      given[#given + 1] = first
      free = free - 1
    end
  end
  return given
end

-- id acc nonce worker lease
function ops.redeem(a)
  local id = a[1]
  if get(id, 'acc') ~= a[2] then return {'none'} end
  local state, kind = get(id, 'state'), get(id, 'kind')
  if state == 'expired' then return {'expired'} end
  if state ~= 'granted' or get(id, 'nonce') ~= a[3] then return {'used'} end
  if tonumber(call('ZSCORE', P .. ':g:' .. kind, id) or 0) <= now then return {'expired'} end
  if get(id, 'quoted') then
    sample(P .. ':said:' .. kind, get(id, 'predicted') .. ' ' .. int(now - tonumber(get(id, 'joined'))))
    settle_quote(id, kind, true)
  end
  call('ZREM', P .. ':g:' .. kind, id)
  call('HDEL', ticket_key(id), 'nonce', 'nonce_expires', 'absent')
  call('HSET', ticket_key(id), 'state', 'running', 'worker', a[4], 'started', int(now))
  call('ZADD', P .. ':r:' .. kind, int(now + tonumber(a[5])), id)
  tally(kind, 'running')
  return {'ok', view(id)}
end

-- id worker lease | stage done total
function ops.renew(a)
  local kind = mine(a[1], a[2])
  if not kind then return 0 end
  call('ZADD', P .. ':r:' .. kind, 'XX', int(now + tonumber(a[3])), a[1])
  if a[4] then call('HSET', ticket_key(a[1]), 'stage', a[4], 'done', a[5], 'total', a[6]) end
  return 1
end

-- id worker used_debt gpu_ms code bytes sha256 tombstone
function ops.finish(a)
  local id = a[1]
  local kind = mine(id, a[2])
  if not kind then return 0 end
  move_clock(get(id, 'acc'), tonumber(a[3]) - tonumber(get(id, 'debt')))
  if a[5] == '' then sample(P .. ':took:' .. kind, get(id, 'est') .. ' ' .. a[4]) end
  conclude(id, a[4], a[5], a[6], a[7], a[8])
  return 1
end

-- id acc kind est debt score used_debt used_ms code bytes sha256 tombstone life remember | field value …
-- A turn that ended in order, and the store forgot the ticket meanwhile or put it back in line: it ended all the same.
function ops.remember(a)
  local id, acc = a[1], a[2]
  local state, used = get(id, 'state'), tonumber(a[7])
  if state then
    if state ~= 'waiting' and state ~= 'granted' and state ~= 'parked' then return 0 end
    move_clock(acc, used - tonumber(get(id, 'debt')))
  else
    if over(acc, tonumber(a[13])) then return 0 end
    set_clock(acc, math.max(now, tonumber(call('GET', P .. ':tat:' .. acc) or 0)) + used)
    bring_back(a, 15)
  end
  conclude(id, a[8], a[9], a[10], a[11], a[12])
  return 1
end

-- id worker used_debt parked max_attempts tombstone
function ops.release(a)
  if not mine(a[1], a[2]) then return 0 end
  move_clock(get(a[1], 'acc'), tonumber(a[3]))
  give_back(a[1], tonumber(a[4]), tonumber(a[5]), a[6])
  return 1
end

local function cancel(id, acc, tombstone)
  local state = get(id, 'state')
  if state == 'waiting' or state == 'granted' or state == 'parked' then
    move_clock(acc, -tonumber(get(id, 'debt')))
    close(id, 'canceled', tombstone)
  elseif state == 'running' then
    close(id, 'canceled', tombstone)  -- the GPU was used: the debt stays
  end
end

-- id acc tombstone
function ops.cancel(a)
  if get(a[1], 'acc') ~= a[2] then return 0 end
  cancel(a[1], a[2], a[3])
  return 1
end

-- limit parked max_attempts tombstone absent kind …
function ops.sweep(a)
  local limit, parked = tonumber(a[1]), tonumber(a[2])
  local function due(key) return call('ZRANGEBYSCORE', key, '-inf', int(now), 'LIMIT', 0, limit) end
  local count = {0, 0, 0, 0}
  for _, id in ipairs(due(P .. ':hb')) do
    park(id, get(id, 'kind'), parked)
    count[1] = count[1] + 1
  end
  for i = 6, #a do
    for _, id in ipairs(due(P .. ':g:' .. a[i])) do
      tally(a[i], 'no_shows')
      -- Perhaps nobody could tell them. Who never comes kept a slot from others: then the debt stays.
      if call('HINCRBY', ticket_key(id), 'attempts', 1) >= tonumber(a[3]) then
        close(id, 'expired', a[4])
      else
        call('ZREM', P .. ':g:' .. a[i], id)
        call('HSET', ticket_key(id), 'absent', '1')
        park(id, a[i], tonumber(a[5]))
      end
      count[2] = count[2] + 1
    end
    for _, id in ipairs(due(P .. ':r:' .. a[i])) do
      give_back(id, parked, tonumber(a[3]), a[4])
      count[3] = count[3] + 1
    end
    for _, worker in ipairs(due(P .. ':w:' .. a[i])) do
      call('ZREM', P .. ':w:' .. a[i], worker)
      leave(worker)
    end
  end
  for _, id in ipairs(due(P .. ':p')) do
    if not get(id, 'absent') then move_clock(get(id, 'acc'), -tonumber(get(id, 'debt'))) end
    close(id, 'expired', a[4])
    count[4] = count[4] + 1
  end
  return count
end

-- worker kind slots alive jobs
function ops.enlist(a)
  call('ZADD', P .. ':w:' .. a[2], int(now + tonumber(a[4])), a[1])
  call('HSET', P .. ':slots', a[1], a[3])
  call('HSET', P .. ':jobs', a[1], a[5])
  return 1
end

-- worker kind …
function ops.retire(a)
  for i = 2, #a do call('ZREM', P .. ':w:' .. a[i], a[1]) end
  leave(a[1])
  return 1
end

-- kind
function ops.load(a)
  local kind, turns = a[1], {}
  for _, id in ipairs(call('ZRANGE', P .. ':r:' .. kind, 0, -1)) do
    local started, est = get(id, 'started'), get(id, 'est')
    if started then turns[#turns + 1] = est .. ' ' .. int(now - tonumber(started)) .. ' ' .. get(id, 'worker') end
  end
  local granted = call('ZRANGE', P .. ':g:' .. kind, 0, -1)
  for _, id in ipairs(granted) do turns[#turns + 1] = get(id, 'est') .. ' 0 ' end
  local sum, workers, jobs = slots(kind)
  local ended = {}
  for _, worker in ipairs(workers) do
    local at = call('HGET', P .. ':end', worker)
    if at then ended[#ended + 1] = worker .. ' ' .. int(now - tonumber(at)) end
  end
  local oldest = call('ZRANGE', P .. ':e:' .. kind, 0, 0, 'WITHSCORES')[2] or now
  return {int(now), call('ZCARD', P .. ':q:' .. kind), call('GET', P .. ':work:' .. kind) or '0', #granted,
          call('ZCARD', P .. ':r:' .. kind), sum, #workers, turns,
          call('LRANGE', P .. ':sw:' .. kind, 0, -1), call('LRANGE', P .. ':took:' .. kind, 0, -1), int(now - oldest),
          jobs, ended, call('LRANGE', P .. ':said:' .. kind, 0, -1)}
end

-- acc
function ops.quota(a)
  return {int(now), call('GET', P .. ':tat:' .. a[1]) or int(now), call('SCARD', P .. ':a:' .. a[1])}
end

-- acc issued_at
local function denied(acc, issued_at)
  local note = call('GET', P .. ':d:' .. acc)
  if not note then return false end
  local until_s, lapses = string.match(note, '^(%d+) (%d+)$')
  return tonumber(lapses) > now and tonumber(issued_at) <= tonumber(until_s)
end

function ops.denied(a) return denied(a[1], a[2]) and 1 or 0 end

-- acc tombstone life issued_until denial forgive
function ops.erase(a)
  if denied(a[1], a[4]) then return 0 end
  local open = call('SMEMBERS', P .. ':a:' .. a[1])
  for _, id in ipairs(open) do
    cancel(id, a[1], a[2])
    call('DEL', ticket_key(id))
  end
  for _, key in ipairs(call('SMEMBERS', P .. ':k:' .. a[1])) do call('DEL', key) end
  call('DEL', P .. ':k:' .. a[1], P .. ':a:' .. a[1])
  if a[6] == '1' then call('DEL', P .. ':tat:' .. a[1]) end
  -- Sealed tickets of before are dead: they end with this note.
  call('SET', P .. ':x:' .. a[1], int(now + tonumber(a[3])), 'PX', a[3])
  call('SET', P .. ':d:' .. a[1], a[4] .. ' ' .. int(now + tonumber(a[5])), 'PX', a[5])
  return #open
end

local arguments = {}
for i = 3, #ARGV do arguments[i - 2] = ARGV[i] end
return ops[ARGV[1]](arguments)
