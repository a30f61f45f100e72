-- Token buckets, some with a sliding window beside them: all rules of one request are checked together, and only if
-- all let it pass, all are taken from. limits/bucket.py is the same in Python; the tests compare the two.
--
-- Catalogue of keys (the hash tag keeps them in one slot of a cluster; every key expires):
--   {mcpm}:b:<rule>:<subject>  bucket, packed doubles: tokens, when (s); with a window also its number, used in it, and
--                              used in the one before. Absent: full and unused. Lives until it would be that anyway.
--   {mcpm}:f:<rule>:<tenant>   what a tenant may take of a bucket that all share: the same, without a window.
--   {mcpm}:w                   sorted set: live workers by the time of their last heartbeat (worker_count.py).
--   {mcpm}:d                   hash: worker -> time, and the demands of the tenants that it saw (shares.py).
--   {mcpm}:p                   written by probes (redis_link.py).
--
-- KEYS     the buckets, then the fair bucket of the tenant if ARGV[2] is not empty
-- ARGV[1]  per bucket six doubles: capacity, refill per second, cost, window in s (0: none), its limit, 1 to enforce
-- ARGV[2]  four doubles: which bucket is shared (from 1), capacity and refill of the fair bucket, reserve
-- Reply    doubles: 1 if allowed; then per bucket what remains, and the seconds until it would let the request pass
--          (0: it does). A bucket that is not enforced never refuses; one that would is not taken from.
--
-- The clock is that of Redis. When it goes back nothing is added, and counting goes on from there.

local LONGEST_WAIT = 86400
local SHORTEST_WAIT = 0.001
local LONGEST_LIFE = 2592000

local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local states = redis.call('MGET', unpack(KEYS))
local fair = ARGV[2] ~= ''
local count = fair and #KEYS - 1 or #KEYS

-- Tokens now, and whether the clock went back since.
local function refilled(state, capacity, refill)
  if not state then return capacity, false end
  local tokens, at = struct.unpack('<dd', state)
  if now > at then tokens = tokens + (now - at) * refill end
  return math.min(tokens, capacity), now < at
end

-- Number of the window now, used in it, used in the one before, and the part of it that is over.
local function turned(state, span)
  local number = math.floor(now / span)
  local over = now / span - number
  if not state or #state < 40 then return number, 0, 0, over end
  local last, used, before = struct.unpack('<ddd', state, 17)
  if number == last + 1 then return number, 0, used, over end
  if number > last then return number, 0, 0, over end
  return number, used, before, over
end

-- Seconds until a bucket holds `need`.
local function until_filled(tokens, need, capacity, refill)
  if tokens >= need then return 0 end
  if need > capacity or refill <= 0 then return LONGEST_WAIT end
  return math.min((need - tokens) / refill, LONGEST_WAIT)
end

-- Seconds until a window has room for `cost`: what was used before slides out of it.
local function until_room(used, before, over, span, limit, cost)
  if before * (1 - over) + used + cost <= limit then return 0 end
  if cost > limit then return LONGEST_WAIT end
  local room = limit - cost - used
  local windows
  if room >= 0 then
    windows = 1 - room / before - over
  else
    windows = 1 - over + 1 - (limit - cost) / used
  end
  return math.min(math.max(windows * span, SHORTEST_WAIT), LONGEST_WAIT)
end

local shared, share_capacity, share_refill, reserve = 0, 0, 0, 0
local share_tokens, share_back
if fair then
  shared, share_capacity, share_refill, reserve = struct.unpack('<dddd', ARGV[2])
  share_tokens, share_back = refilled(states[#KEYS], share_capacity, share_refill)
end

-- Seconds until the shared bucket lets pass: who has a token of its own share needs no more than the cost, everybody
-- else leaves the reserve alone.
local function until_shared(tokens, cost, capacity, refill)
  local own = until_filled(tokens, cost, capacity, refill)
  if share_tokens >= cost then return own end
  return math.min(
    math.max(own, until_filled(share_tokens, cost, share_capacity, share_refill)),
    until_filled(tokens, cost + reserve, capacity, refill)
  )
end

local allowed = true
local buckets = {}
for i = 1, count do
  local capacity, refill, cost, span, limit, enforce = struct.unpack('<dddddd', ARGV[1], i * 48 - 47)
  local tokens, back = refilled(states[i], capacity, refill)
  local wait
  if i == shared then
    wait = until_shared(tokens, cost, capacity, refill)
  else
    wait = until_filled(tokens, cost, capacity, refill)
  end
  local bucket = { capacity, refill, cost, span, limit, tokens, wait, back }
  if span > 0 then
    local number, used, before, over = turned(states[i], span)
    bucket[7] = math.max(wait, until_room(used, before, over, span, limit, cost))
    bucket[9], bucket[10], bucket[11], bucket[12] = number, used, before, over
  end
  if bucket[7] > 0 and enforce == 1 then allowed = false end
  buckets[i] = bucket
end

local function keep(key, capacity, refill, tokens, span, window)
  local life = LONGEST_LIFE
  if refill > 0 then life = math.min((capacity - tokens) / refill + 2 * span, LONGEST_LIFE) end
  redis.call('SET', key, struct.pack('<dd', tokens, now) .. window, 'PX', math.ceil(life * 1000) + 1)
end

local reply = { struct.pack('<d', allowed and 1 or 0) }
for i = 1, count do
  local capacity, refill, cost, span, limit, tokens, wait, back = unpack(buckets[i], 1, 8)
  local number, used, before, over = unpack(buckets[i], 9, 12)
  local taken = allowed and wait == 0
  if taken then tokens = tokens - cost end
  local remaining, window = tokens, ''
  if span > 0 then
    if taken then used = used + cost end
    remaining = math.max(0, math.min(tokens, limit - (before * (1 - over) + used)))
    window = struct.pack('<ddd', number, used, before)
  end
  if taken or back then keep(KEYS[i], capacity, refill, tokens, span, window) end
  reply[i + 1] = struct.pack('<dd', remaining, wait)
end

if fair then
  local cost = buckets[shared][3]
  local taken = allowed and share_tokens >= cost and buckets[shared][7] == 0
  if taken then share_tokens = share_tokens - cost end
  if taken or share_back then keep(KEYS[#KEYS], share_capacity, share_refill, share_tokens, 0, '') end
end
return table.concat(reply)
