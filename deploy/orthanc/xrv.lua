-- Forwards new radiographs to the service; its results come back by STOW-RS or C-STORE.
--
-- The service decides what is read (body part, view, screening), so this only keeps other
-- modalities away. Results are SR, SEG, OT and PR: never CR or DX, so nothing goes in circles.
-- What cannot be forwarded now, because the service is down or full, it fetches later itself:
-- see [[pull]] in serve.toml.

local RADIOGRAPHS = { CR = true, DX = true }
local SERVICE = 'xrv' -- in DicomModalities

function OnStoredInstance(instanceId, tags, metadata, origin)
  if RADIOGRAPHS[tags['Modality'] or ''] then
    local body = DumpJson({
      Resources = { instanceId },
      Asynchronous = true, -- a job of Orthanc, which does not hold up whoever stores
      Permissive = true
    }, true)
    RestApiPost('/modalities/' .. SERVICE .. '/store', body, true)
  end
end
