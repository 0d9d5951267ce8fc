"""Small files of the recorded formats. NOTICE.md says which are recorded, which are generated, and how."""
