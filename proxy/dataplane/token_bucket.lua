-- Token buckets, some with a sliding window beside them: all rules of one request are checked together, and only if
-- all let it pass, all are taken from. limits/bucket.py is the same in Python; the tests compare the two.
--
-- Catalogue of keys (the hash tag keeps them in one slot of a cluster; every key expires):
--   {mcpm}:b:<rule>:<subject>  bucket, packed doubles: tokens, when (s); with a window also its number, used in it, and
--                              used in the one before. Absent: full and unused. Lives until it would be that anyway.
--   {mcpm}:f:<rule>:<tenant>   what a tenant may take of a bucket that all share: the same, without a window.
--   {mcpm}:d                   hash: live worker -> time, and the demands of the tenants that it saw (shares.py).
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

local call, read, write = redis.call, struct.unpack, struct.pack
local min, max, floor, ceil = math.min, math.max, math.floor, math.ceil

local time = call('TIME')
local now = time[1] + time[2] / 1000000
local states = call('MGET', unpack(KEYS))
local rules, fair = ARGV[1], ARGV[2] ~= ''
local count = fair and #KEYS - 1 or #KEYS

-- Tokens now, and whether the clock went back since.
local function refilled(state, capacity, refill)
  if not state then return capacity, false end
  local tokens, at = read('<dd', state)
  if now > at then tokens = tokens + (now - at) * refill end
  if tokens > capacity then tokens = capacity end
  return tokens, now < at
end

-- Seconds until a bucket holds `need`.
local function until_filled(tokens, need, capacity, refill)
  if tokens >= need then return 0 end
  if need > capacity or refill <= 0 then return LONGEST_WAIT end
  return min((need - tokens) / refill, LONGEST_WAIT)
end

-- Number of the window now, used in it, used in the one before, and the part of it that is over.
local function turned(state, span)
  local number = floor(now / span)
  local over = now / span - number
  if not state or #state < 40 then return { number, 0, 0, over } end
  local last, used, before = read('<ddd', state, 17)
  if number == last + 1 then return { number, 0, used, over } end
  if number > last then return { number, 0, 0, over } end
  return { number, used, before, over }
end

-- Seconds until a window has room for `cost`: what was used before slides out of it.
local function until_room(window, span, limit, cost)
  local used, before, over = window[2], window[3], window[4]
  if before * (1 - over) + used + cost <= limit then return 0 end
  if cost > limit then return LONGEST_WAIT end
  local room = limit - cost - used
  local windows
  if room >= 0 then
    windows = 1 - room / before - over
  else
    windows = 1 - over + 1 - (limit - cost) / used
  end
  return min(max(windows * span, SHORTEST_WAIT), LONGEST_WAIT)
end

local shared, share_capacity, share_refill, reserve, share_tokens, share_back
if fair then
  shared, share_capacity, share_refill, reserve = read('<dddd', ARGV[2])
  share_tokens, share_back = refilled(states[count + 1], share_capacity, share_refill)
end

-- Seconds until the shared bucket lets pass: who has a token of its own share needs no more than the cost, everybody
-- else leaves the reserve alone.
local function until_shared(tokens, cost, capacity, refill)
  local own = until_filled(tokens, cost, capacity, refill)
  if share_tokens >= cost then return own end
  local lent = until_filled(share_tokens, cost, share_capacity, share_refill)
  return min(max(own, lent), until_filled(tokens, cost + reserve, capacity, refill))
end

-- Check all. `reply` is what remains, and the wait, of one after the other.
local allowed = 1
local reply, backs, windows = {}, {}, {}
for i = 1, count do
  local state = states[i]
  local capacity, refill, cost, span, limit, enforce = read('<dddddd', rules, i * 48 - 47)
  local tokens, back, wait = capacity, false, 0
  if state then
    local held, at = read('<dd', state)
    if now > at then held = held + (now - at) * refill else back = now < at end
    if held < capacity then tokens = held end
  end
  if i == shared then
    wait = until_shared(tokens, cost, capacity, refill)
  elseif tokens < cost then
    wait = until_filled(tokens, cost, capacity, refill)
  end
  if span > 0 then
    local window = turned(state, span)
    wait = max(wait, until_room(window, span, limit, cost))
    windows[i] = window
  end
  if wait > 0 and enforce == 1 then allowed = 0 end
  if back then backs[i] = true end
  reply[2 * i - 1], reply[2 * i] = tokens, wait
end

-- Milliseconds that a bucket differs from one that is not there.
local function life(missing, refill, span)
  local seconds = LONGEST_LIFE
  if refill > 0 then seconds = min(missing / refill + 2 * span, LONGEST_LIFE) end
  return ceil(seconds * 1000) + 1
end

-- Take from all, or from none.
for i = 1, count do
  local taken = allowed == 1 and reply[2 * i] == 0
  if taken or backs[i] or windows[i] then
    local capacity, refill, cost, span, limit = read('<ddddd', rules, i * 48 - 47)
    local tokens, window = reply[2 * i - 1], windows[i]
    if taken then tokens = tokens - cost end
    local remaining, used = tokens, ''
    if window then
      if taken then window[2] = window[2] + cost end
      remaining = max(0, min(tokens, limit - (window[3] * (1 - window[4]) + window[2])))
      used = write('<ddd', window[1], window[2], window[3])
    end
    if taken or backs[i] then
      call('SET', KEYS[i], write('<dd', tokens, now) .. used, 'PX', life(capacity - tokens, refill, span))
    end
    reply[2 * i - 1] = remaining
  end
end

if fair then
  local _, _, cost = read('<ddd', rules, shared * 48 - 47)
  local taken = allowed == 1 and reply[2 * shared] == 0 and share_tokens >= cost
  if taken then share_tokens = share_tokens - cost end
  if taken or share_back then
    local state = write('<dd', share_tokens, now)
    call('SET', KEYS[count + 1], state, 'PX', life(share_capacity - share_tokens, share_refill, 0))
  end
end
return write('<' .. string.rep('d', 1 + 2 * count), allowed, unpack(reply))
