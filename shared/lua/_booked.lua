-- What a script ends and settles by itself, told to the process that runs it: who should have counted it is not there any more.
-- {{{status, code or '', ms since somebody asked for it or -1}, …},
--  {{provider, model, input tokens, cached ones of them, output tokens, reasoning tokens, cost (10^-12 dollars)}, …}}
local booked = {{}, {}}

local function book_end(...)
  booked[1][#booked[1] + 1] = {...}
end

local function book_call(...)
  booked[2][#booked[2] + 1] = {...}
end
