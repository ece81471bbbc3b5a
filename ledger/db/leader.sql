-- Who mirrors an account: one process leads, all others stand by. A lease says who and until when; a number, the fence,
-- says whose writes count. The lease may lapse, be late or be wrong about a process that sleeps: the fence decides, since
-- every write compares it under the account's lock.

-- Still leading: the lease is extended. Also one that has lapsed, as long as nobody else took it. False: another leads.
CREATE OR REPLACE FUNCTION ledger.keep_lead(p_account text, p_holder uuid, p_fence bigint, p_ttl interval)
RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ledger.leases l SET until_at = ledger.clock() + p_ttl
    WHERE l.account = p_account AND l.holder = p_holder AND l.fence = p_fence;
    RETURN FOUND;
END
$$;

-- Take the lead if nobody has it. Returns the fence to write under; null: another leads. Asked again by the same holder,
-- whose answer was lost, it gives the same fence. Under the account's lock: a write in flight is waited for, and any
-- that comes later under an older fence is refused.
CREATE OR REPLACE FUNCTION ledger.take_lead(p_account text, p_holder uuid, p_host text, p_ttl interval)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_lease record;
    v_fence bigint;
BEGIN
    PERFORM ledger.lock_account(p_account, NULL);
    SELECT l.fence, l.until_at > ledger.clock() AS held INTO v_lease
    FROM ledger.leases l WHERE l.account = p_account FOR NO KEY UPDATE;
    IF v_lease.held THEN
        RETURN CASE WHEN ledger.keep_lead(p_account, p_holder, v_lease.fence, p_ttl) THEN v_lease.fence END;
    END IF;
    UPDATE ledger.accounts a SET fence = a.fence + 1 WHERE a.account = p_account RETURNING a.fence INTO STRICT v_fence;
    INSERT INTO ledger.leases (account, holder, fence, host, taken_at, until_at)
    VALUES (p_account, p_holder, v_fence, p_host, ledger.clock(), ledger.clock() + p_ttl)
    ON CONFLICT (account) DO UPDATE SET holder = excluded.holder, fence = excluded.fence, host = excluded.host,
        taken_at = excluded.taken_at, until_at = excluded.until_at;
    RETURN v_fence;
END
$$;

-- Stop leading, so that whoever stands by need not wait for the lease to lapse. Nothing happens where another leads.
CREATE OR REPLACE FUNCTION ledger.leave_lead(p_account text, p_holder uuid, p_fence bigint) RETURNS void
LANGUAGE sql AS $$
    UPDATE ledger.leases SET until_at = least(until_at, ledger.clock())
    WHERE account = p_account AND holder = p_holder AND fence = p_fence
$$;
