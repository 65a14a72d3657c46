-- A new job that answers no chat: `create` asks for no more than this.
local chat = nil
